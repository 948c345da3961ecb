"""What answers are worth: metrics with their intervals, and whether one system is better than another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from finetune.results.metrics import compute

LABEL_METRICS = ("accuracy", "f1")
TEXT_METRICS = ("rouge", "chrf")
RESAMPLES = 1000

Interval = tuple[float, float]


def scores(
    answers: Sequence[str], references: Sequence[str], *, generates: bool, more: Sequence[str] = ()
) -> dict[str, float]:
    """The task's metrics, 0 to 1, and `more` that a recipe names. Raises `SuiteError` as `metrics.compute` does."""
    found: dict[str, float] = {}
    for name in dict.fromkeys([*(TEXT_METRICS if generates else LABEL_METRICS), *more]):
        for key, value in compute(name, answers, references).items():
            found.setdefault(key, round(value, 4))
    return found


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


def interval(values: np.ndarray) -> Interval:
    """95 % interval of the mean by resampling rows with replacement (Efron 1979): the percentile bootstrap."""
    if len(values) < 2:  # which scipy refuses
        return round(float(values.mean()), 4), round(float(values.mean()), 4)
    return bootstrap((values,), np.mean)


def bootstrap(samples: Sequence[np.ndarray], statistic: Callable[..., Any], digits: int = 4) -> Interval:
    """Percentile interval of a statistic whose samples (rows,) are resampled together. The same at every call."""
    from scipy import stats

    found = stats.bootstrap(
        samples,
        statistic,
        paired=len(samples) > 1,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return round(float(found.low), digits), round(float(found.high), digits)


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
