"""Macro F1: the mean over labels of the harmonic mean of precision and recall (scikit-learn)."""

import datasets
import evaluate
import sklearn.metrics


class F1(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description=__doc__ or "", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"f1": float(sklearn.metrics.f1_score(references, predictions, average="macro", zero_division=0))}
