"""Adapters on a `DecoderNetwork`, whose matrices are merged: what a published layer's delta changes is its part."""

from __future__ import annotations

from shared.engines.adapters.deltas import Delta
from shared.engines.adapters.merged_layers import teach
from shared.engines.decoders.network import DecoderNetwork


class DecoderLayers:
    """The layers by their published names (`shared.engines.adapters.deltas.Layers`)."""

    def __init__(self, network: DecoderNetwork) -> None:
        self._network, self.prefix = network, network.prefix
        self.shapes = {
            f"{network.layer.format(number)}{name}": shape
            for number in range(network.shape.layers)
            for names in network.published(network.shape).values()
            for name, shape in names.items()
        }

    def teach(self) -> None:
        published = self._network.published(self._network.shape)
        for number, products in enumerate(self._network.layers):
            for own, names in published.items():
                full = [f"{self._network.layer.format(number)}{name}" for name in names]
                teach(products[own], {name: self.shapes[name][0] for name in full})

    def fit(self, name: str, delta: Delta) -> Delta:
        return delta
