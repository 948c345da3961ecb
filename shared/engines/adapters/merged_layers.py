"""Adapters on layers that a network has merged: what a published layer's delta changes is its part of the product."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from shared.engines.adapters.deltas import active


def teach(linear: torch.nn.Module, parts: Mapping[str, int]) -> None:
    """Has a merged layer ask, at each call, what is added to its parts: published names and their widths, in order.

    Takes effect in one assignment, so others may be computing meanwhile.
    """
    if not isinstance(linear.forward, _Merged):
        linear.forward = _Merged(linear, list(parts), list(parts.values()))


class _Merged:
    """Stands in for a linear layer's `forward`. Holds the layer weakly, or an evicted base would outlive its entry."""

    __slots__ = ("_names", "_plain", "_sizes")

    def __init__(self, layer: torch.nn.Module, names: Sequence[str], sizes: list[int]) -> None:
        self._plain = weakref.WeakMethod(layer.forward)
        self._names, self._sizes = names, sizes

    def __call__(self, x: Tensor) -> Tensor:
        plain = self._plain()
        assert plain is not None
        deltas = active() or {}
        result = plain(x)
        changed = []
        for name, part in zip(self._names, result.split(self._sizes, 1), strict=True):
            delta = deltas.get(name)
            at = len(changed)

            def of_part(y: Tensor, at: int = at, part: Tensor = part) -> Tensor:
                return part if y is x else plain(y).split(self._sizes, 1)[at]

            changed.append(part if delta is None else delta(of_part, x))
        return torch.cat(changed, 1)
