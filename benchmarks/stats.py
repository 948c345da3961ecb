"""The few statistics the reports need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]

RESAMPLES = 2_000


def percentile(values: Sequence[float], share: float) -> float:
    """`share` 0.5 is the median; between two values it interpolates."""
    return float(np.quantile(np.asarray(values), share))


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """95 % interval of the mean, from resampling the items with replacement (Efron 1979)."""
    sample = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(sample), (RESAMPLES, len(sample)))
    low, high = np.quantile(sample[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def spread(values: Sequence[float]) -> str:
    """Median, and the least and the greatest where there are several: `1.20 (1.10 to 1.35)`."""
    middle = percentile(values, 0.5)
    if len(values) < 2:
        return f"{middle:.2f}"
    return f"{middle:.2f} ({min(values):.2f} to {max(values):.2f})"
