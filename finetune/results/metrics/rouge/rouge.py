"""ROUGE-1, ROUGE-2 and ROUGE-L, F-measure with stemming (Lin 2004; the package rouge-score)."""

import datasets
import evaluate
import rouge_score.rouge_scorer


class Rouge(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description=__doc__ or "", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        names = ("rouge1", "rouge2", "rougeL")
        scorer = rouge_score.rouge_scorer.RougeScorer(names, use_stemmer=True)
        rows = [scorer.score(r, p) for p, r in zip(predictions, references, strict=True)]
        return {name: sum(row[name].fmeasure for row in rows) / len(rows) for name in names}
