"""Adapters on a `DecoderNetwork`, whose merged matrices have several published layers each."""

from __future__ import annotations

from shared.engines.adapters.merged_layers import install_hook
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

    def install_hooks(self) -> None:
        published = self._network.published(self._network.shape)
        for number, products in enumerate(self._network.layers):
            for own, names in published.items():
                full = [f"{self._network.layer.format(number)}{name}" for name in names]
                install_hook(products[own], {name: self.shapes[name][0] for name in full})
