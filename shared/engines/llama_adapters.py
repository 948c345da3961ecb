"""Adapters on `LlamaNetwork`, whose matrices are merged, and whose stream is turned and carries no norm's weights.

peft's matrices were made for the published layers, so they are moved into the network's own terms once, when an adapter
is put on. Computed without TorchScript, which knows nothing of adapters.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from shared.engines.adapter import Delta, LowRank, Scale, active
from shared.engines.llama_network import NORMED, LlamaNetwork

PARTS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attended": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Which published layers one of the network's own holds, one below the other."""


@dataclass(frozen=True, slots=True, eq=False)
class Mixed:
    """Multiplies what goes in, or what comes out, by a matrix: a learned vector (IA3) in a turned stream."""

    matrix: Tensor
    inputs: bool

    def __call__(self, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return forward(x @ self.matrix) if self.inputs else forward(x) @ self.matrix


class LlamaLayers:
    """The layers by their published names (`shared.engines.adapter.Layers`)."""

    prefix = "model."

    def __init__(self, network: LlamaNetwork) -> None:
        self._network = network
        sizes = {
            "self_attn.q_proj": (network.heads * network.head_size, network.width),
            "self_attn.k_proj": (network.kv_heads * network.head_size, network.width),
            "self_attn.v_proj": (network.kv_heads * network.head_size, network.width),
            "self_attn.o_proj": (network.width, network.heads * network.head_size),
            "mlp.gate_proj": (network.inner, network.width),
            "mlp.up_proj": (network.inner, network.width),
            "mlp.down_proj": (network.width, network.inner),
        }
        self.shapes = {
            f"model.layers.{n}.{name}": size for n in range(len(network.layers)) for name, size in sizes.items()
        }

    def teach(self) -> None:
        """Each takes effect in one assignment, so others may be computing meanwhile."""
        for number, layer in enumerate(self._network.layers):
            for own, names in PARTS.items():
                linear = getattr(layer, own)
                if not isinstance(linear.forward, _Adaptable):
                    full = [f"model.layers.{number}.{name}" for name in names]
                    linear.forward = _Adaptable(linear, full, [self.shapes[name][0] for name in full])

    def fit(self, name: str, delta: Delta) -> Delta | Mixed:
        """The same change in the network's terms."""
        _, _, number, own = name.split(".", 3)
        turn = self._network.rotation
        layer: Any = self._network.layers[int(number)]
        norm = next((layer.norms[n] for n, names in NORMED.items() if own in names), None)
        out = own in ("self_attn.o_proj", "mlp.down_proj")
        if isinstance(delta, LowRank):
            a = delta.a if norm is None else (delta.a * norm) @ turn
            return LowRank(a, turn.T @ delta.b if out else delta.b, delta.scaling)
        if isinstance(delta, Scale) and (norm is not None if delta.inputs else out):
            return Mixed(turn.T @ (delta.vector[:, None] * turn), delta.inputs)
        return delta


class _Adaptable:
    """Stands in for a linear layer's `forward`. Holds the layer weakly, or an evicted base would outlive its entry."""

    __slots__ = ("_names", "_plain", "_sizes")

    def __init__(self, layer: torch.nn.Module, names: list[str], sizes: list[int]) -> None:
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
