"""The fast engine for sentence encoders: texts of all visitors in one matrix without padding, weights in int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.checkpoints.catalog import Checkpoint
from shared.engines.adapters.merged_layers import install_hook
from shared.engines.compute import Compute, run_here
from shared.engines.encoders import reference
from shared.engines.encoders.bert import PARTS, BertNetwork, applies, read_config
from shared.engines.encoders.reference import SentenceWindows, read_tokenizer, read_weights
from shared.engines.packed.kernel_choice import why_not
from shared.engines.pretrained.loading import WAY_OUT
from shared.errors import WeightsCorrupt
from shared.events import Progress
from shared.settings import Settings

__all__ = ["load", "memory_bytes", "prepare", "why_not"]

STEP_TOKENS = 1024
"""Tokens of one step: some 150 ms on one core. Longer steps are no faster."""


Text = tuple[Sequence[int], Sequence[int]]
"""Token ids and token types of a text."""


class Encoder:
    """The kernel of an encoder: one forward pass for all texts."""

    def __init__(self, network: BertNetwork) -> None:
        self.network = network

    def __call__(self, texts: Sequence[Text]) -> list[np.ndarray]:
        """The states of each text's tokens, float32 (tokens, width)."""
        lengths = [len(ids) for ids, _ in texts]
        states = self.network.states([i for ids, _ in texts for i in ids], [t for _, ts in texts for t in ts], lengths)
        return np.split(states, np.cumsum(lengths)[:-1])

    def can_join(self, batch: Sequence[Text], item: Text) -> bool:
        return sum(len(ids) for ids, _ in batch) + len(item[0]) <= STEP_TOKENS

    def most_cores(self, texts: Sequence[Any]) -> int:
        return 1  # its products are too short to be shared out


class BatchedSentenceEncoder(SentenceWindows):
    """A `SentenceEncoder` whose requests share their forward passes."""

    def __init__(self, network: BertNetwork, tokenizer: Any, max_tokens: int, pooler: dict[str, Any]) -> None:
        super().__init__(tokenizer, max_tokens, pooler)
        self.name = f"compiled-{network.number_format}"
        self.encoder = Encoder(network)
        self.dimensions = network.width
        self.nbytes = network.nbytes + sum(p.nbytes for p in self.pooler.values())

    def vectors(self, windows: Sequence[Sequence[int]], compute: Compute = run_here) -> list[np.ndarray]:
        found = compute.map(self.encoder, [(window, [0] * len(window)) for window in windows])
        return [_unit(states.mean(0)) for states in found]

    def first_states(self, encodings: Sequence[Any], compute: Compute = run_here) -> Tensor:
        """The first token's last state of each encoding, float32 (encodings, width); for a head of an adapter's own."""
        found = compute.map(self.encoder, [(encoding.ids, encoding.type_ids) for encoding in encodings])
        return torch.from_numpy(np.stack([states[0] for states in found]))

    def adaptable(self) -> BertLayers:
        """The linear layers, for an adapter."""
        return BertLayers(self.encoder.network)


class BertLayers:
    """The layers by their published names (`shared.engines.adapters.deltas.Layers`)."""

    prefix = "bert."

    def __init__(self, network: BertNetwork) -> None:
        self._network = network
        outs, ins = {"up": network.stacked.inner}, {"down": network.stacked.inner}
        self.shapes = {
            f"encoder.layer.{n}.{name}": (outs.get(own, network.width), ins.get(own, network.width))
            for n in range(len(network.layers))
            for own, names in PARTS.items()
            for name in names
        }

    def install_hooks(self) -> None:
        for number, layer in enumerate(self._network.layers):
            for own, names in PARTS.items():
                full = [f"encoder.layer.{number}.{name}" for name in names]
                install_hook(layer[own], {name: self.shapes[name][0] for name in full})


# -- loading ---------------------------------------------------------------------------------------


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most: those of the reference engine."""
    return reference.memory_bytes(checkpoint)


def prepare(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Path:
    """The folder itself; the kernels are compiled, so that the first click need not wait for it."""
    load(checkpoint, folder, settings, progress)
    return folder


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> SentenceWindows:
    """Reads a verified folder, without transformers. Raises `WeightsCorrupt`."""
    config = read_config(folder / "config.json")
    if why_not(settings) or not applies(config):
        return reference.load(checkpoint, folder, settings, progress)
    progress("reading weights", 0, checkpoint.parameters * 4)
    # The embeddings stay where they are in the file: of 47 MB only the rows of words in use come into memory. They
    # have a mapping of their own, since the layers are copied, and theirs is to end.
    embeddings = read_weights(folder, lambda name: name.startswith("embeddings."))
    layers = read_weights(folder, lambda name: name.startswith("encoder."))
    pooler = read_weights(folder, lambda name: name.startswith("pooler."))
    try:
        network = BertNetwork(embeddings | layers, config)
    except KeyError as error:
        raise WeightsCorrupt(f"the weights of {checkpoint.id} are incomplete: they lack {error}; {WAY_OUT}") from None
    del layers
    engine = BatchedSentenceEncoder(network, read_tokenizer(folder), checkpoint.context_window, pooler)
    progress("compiling for this processor, once", 0, 0)
    engine.encoder([([0], [0])])
    return engine


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
