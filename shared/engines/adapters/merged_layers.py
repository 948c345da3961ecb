"""Adapters on merged layers: a published layer's delta changes its part of the product."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from shared.engines.adapters.deltas import active


def install_hook(linear: torch.nn.Module, parts: Mapping[str, int]) -> None:
    """Wraps a merged layer's `forward`, so that it applies the calling thread's adapter to each part.

    `parts`: published names and their output widths, in order. The change is one assignment, so others may be computing
    meanwhile.
    """
    if not isinstance(linear.forward, _MergedHook):
        linear.forward = _MergedHook(linear, list(parts), list(parts.values()))


class _MergedHook:
    """Replaces a linear layer's `forward`. Refers to the layer weakly, or an evicted base would stay in memory."""

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
