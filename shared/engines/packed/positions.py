"""Positions as sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoids(count: int, dimensions: int) -> Tensor:
    """Positions 0 to count - 1, (count, D): all sines, then all cosines, as Marian lays them out."""
    half = dimensions // 2
    rates = torch.exp(torch.arange(half) * (-math.log(10_000.0) / (half - 1)))
    angles = torch.arange(count)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), 1)
