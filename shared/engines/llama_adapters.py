"""Adapters on `LlamaNetwork`, whose matrices are merged: what a published layer's delta changes is its part of one."""

from __future__ import annotations

from shared.engines.adapter import Delta
from shared.engines.llama_network import MERGED, LlamaNetwork, widths
from shared.engines.merged_layers import teach


class LlamaLayers:
    """The layers by their published names (`shared.engines.adapter.Layers`)."""

    prefix = "model."

    def __init__(self, network: LlamaNetwork) -> None:
        self._network = network
        shape = network.shape
        inputs = {"self_attn.o_proj": shape.heads * shape.head_size, "mlp.down_proj": shape.inner}
        self.shapes = {
            f"model.layers.{number}.{name}": (out, inputs.get(name, shape.width))
            for number in range(shape.layers)
            for name, out in widths(shape).items()
        }

    def teach(self) -> None:
        for number, layer in enumerate(self._network.layers):
            for own, names in MERGED.items():
                full = [f"model.layers.{number}.{name}" for name in names]
                teach(layer.products[own], {name: self.shapes[name][0] for name in full})

    def fit(self, name: str, delta: Delta) -> Delta:
        return delta
