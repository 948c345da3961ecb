"""chrF of the whole corpus, 0 to 1 (Popović 2015; the package sacrebleu)."""

import datasets
import evaluate
import sacrebleu


class ChrF(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description=__doc__ or "", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"chrf": sacrebleu.corpus_chrf(predictions, [references]).score / 100}
