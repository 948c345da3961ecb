"""Adapters on a `Seq2SeqNetwork`, whose merged matrices have several published layers each."""

from __future__ import annotations

from shared.engines.adapters.merged_layers import install_hook
from shared.engines.seq2seq.network import SIDES, Seq2SeqNetwork

OUTPUT = "lm_head"


class Seq2SeqLayers:
    """The layers by their published names (`shared.engines.adapters.deltas.Layers`)."""

    def __init__(self, network: Seq2SeqNetwork) -> None:
        self._network, self.prefix = network, network.prefix
        self._merged = [
            (product, {f"{at}{name}": shape for name, shape in network.published(network.shape, side)[own].items()})
            for side_index, side in enumerate(SIDES)
            for at, layer in zip(network.layers_of(network.shape, side_index), network.layers[side], strict=True)
            for own, product in layer.items()
        ]
        self._merged.append((network.output, {OUTPUT: (network.shape.vocabulary, network.shape.width)}))
        self.shapes = {name: shape for _, parts in self._merged for name, shape in parts.items()}

    def install_hooks(self) -> None:
        for product, parts in self._merged:
            install_hook(product, {name: out for name, (out, _) in parts.items()})
