"""What answers are worth: metrics with their intervals, and whether one system is better than another.

The metrics are `evaluate` scripts that ship in `finetune/results/metrics`, since the library's own come from a Hub.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

METRICS = Path(__file__).with_name("metrics")
RESAMPLES = 1000

LABEL_METRICS = ("accuracy", "f1")
TEXT_METRICS = ("rouge", "chrf")

Interval = tuple[float, float]


def metric(name: str) -> Any:
    """A metric of `finetune/results/metrics` through `evaluate`."""
    import evaluate

    return evaluate.load(str(METRICS / name))


def scores(answers: Sequence[str], references: Sequence[str], *, generates: bool) -> dict[str, float]:
    """Every metric that fits, 0 to 1."""
    found: dict[str, float] = {}
    for name in TEXT_METRICS if generates else LABEL_METRICS:
        found |= metric(name).compute(predictions=list(answers), references=list(references))
    return {name: round(float(value), 4) for name, value in found.items()}


def headline(task: str) -> str:
    """The metric that systems are compared by. ROUGE knows Latin letters alone, so a translation's is chrF."""
    if task == "translation":
        return "chrf"
    return "accuracy" if task.endswith("-classification") else "rougeL"


def per_row(answers: Sequence[str], references: Sequence[str], task: str) -> np.ndarray:
    """The headline metric of each row: right or wrong, ROUGE-L, or the sentence's chrF. (rows,)"""
    if headline(task) == "accuracy":
        return np.array([float(a == r) for a, r in zip(answers, references, strict=True)])
    if headline(task) == "chrf":
        from sacrebleu import sentence_chrf

        return np.array([sentence_chrf(a, [r]).score / 100 for a, r in zip(answers, references, strict=True)])
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return np.array([scorer.score(r, a)["rougeL"].fmeasure for a, r in zip(answers, references, strict=True)])


def interval(values: np.ndarray, of: Callable[[np.ndarray], np.ndarray] = lambda drawn: drawn.mean(axis=1)) -> Interval:
    """95 % interval by resampling rows with replacement (Efron 1979)."""
    drawn = values[np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))]
    low, high = np.quantile(of(drawn), [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)


def difference(better: np.ndarray, than: np.ndarray) -> Interval:
    """95 % interval of the mean difference on the same rows: the paired bootstrap."""
    return interval(better - than)


def confusion(answers: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """`counts[i][j]`: rows of label i that were called label j. An answer that is no label is in the last column."""
    labels = sorted(set(references))
    other = [*labels, "(other)"]
    counts = [[0] * len(other) for _ in labels]
    for answer, reference in zip(answers, references, strict=True):
        column = other.index(answer) if answer in labels else len(labels)
        counts[labels.index(reference)][column] += 1
    if not any(row[-1] for row in counts):
        return {"labels": labels, "counts": [row[:-1] for row in counts]}
    return {"labels": labels, "columns": other, "counts": counts}


def perplexity(loss: float) -> float:
    return round(math.exp(min(loss, 50.0)), 3)
