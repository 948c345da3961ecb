"""Metrics of answers: our four, computed by scikit-learn, rouge-score and sacrebleu, and any other of `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shared.errors import SuiteError

Texts = Sequence[str]


def accuracy(answers: Texts, references: Texts) -> dict[str, float]:
    """Share of answers that are the reference."""
    return {"accuracy": sum(a == r for a, r in zip(answers, references, strict=True)) / len(references)}


def f1(answers: Texts, references: Texts) -> dict[str, float]:
    """Macro F1: the mean over labels of the harmonic mean of precision and recall."""
    from sklearn.metrics import f1_score

    zero: Any = 0.0  # which its annotation leaves out
    return {"f1": float(f1_score(references, answers, average="macro", zero_division=zero))}


def rouge(answers: Texts, references: Texts) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004): mean F-measure of the rows, with stemming."""
    from rouge_score.rouge_scorer import RougeScorer

    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(names, use_stemmer=True)
    rows = [scorer.score(r, a) for a, r in zip(answers, references, strict=True)]
    return {name: sum(row[name].fmeasure for row in rows) / len(rows) for name in names}


def chrf(answers: Texts, references: Texts) -> dict[str, float]:
    """chrF of the whole corpus, 0 to 1 (Popović 2015)."""
    from sacrebleu import corpus_chrf

    return {"chrf": corpus_chrf(answers, [references]).score / 100}


METRICS: Mapping[str, Callable[[Texts, Texts], dict[str, float]]] = {
    "accuracy": accuracy,
    "f1": f1,
    "rouge": rouge,
    "chrf": chrf,
}
"""Our own, by the names that recipes give them."""


def compute(name: str, answers: Texts, references: Texts) -> dict[str, float]:
    """The values of a metric by their names. Raises `SuiteError` for one that is missing or cannot judge these rows."""
    if name in METRICS:
        return METRICS[name](answers, references)
    metric = load(name)
    features = metric.features[0] if isinstance(metric.features, list) else metric.features
    rows: dict[str, list[Any]] = {"predictions": list(answers), "references": list(references)}
    if features["predictions"].dtype != "string":  # the library's metrics for classifiers compare numbers
        numbers = {label: number for number, label in enumerate(dict.fromkeys([*sorted(set(references)), *answers]))}
        rows = {column: [numbers[label] for label in labels] for column, labels in rows.items()}
    try:
        values = metric.compute(**rows)
    except (ValueError, TypeError) as error:
        raise SuiteError(f"the metric {name} cannot judge these rows: {error}", field="evaluation.metrics") from error
    return {key: float(value) for key, value in values.items() if isinstance(value, int | float)}


def load(name: str) -> Any:
    """A metric of the library `evaluate`: its name on a Hub, or the path of its script. Raises `SuiteError`."""
    import evaluate

    try:
        return evaluate.load(name, keep_in_memory=True)
    except (OSError, ImportError) as error:  # missing or no network; the packages that it needs
        reason = str(error).strip().splitlines()[0] if isinstance(error, ImportError) else "it is not on this machine"
        raise SuiteError(
            f"the metric {name} cannot be loaded: {reason}. Metrics but {', '.join(METRICS)} come from a Hub, as "
            "programs that run here; check the name and the network, or name the path of a metric's script",
            field="evaluation.metrics",
        ) from error


def require(names: Sequence[str]) -> None:
    """Loads those that are not ours, so that a missing one is known before the training. Raises `SuiteError`."""
    for name in names:
        if name not in METRICS:
            load(name)
