"""The fast engine for sentence encoders: texts of all visitors in one matrix without padding, weights in int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.catalog import Checkpoint
from shared.engines import Compute, run_here, sentence_encoder
from shared.engines.adapter import active
from shared.engines.bert_network import PARTS, BertNetwork, applies
from shared.engines.compiled import compiled
from shared.engines.int8_linear import ONE_CORE, processor_has_int8
from shared.engines.merged_layers import teach
from shared.engines.sentence_encoder import SentenceWindows
from shared.events import Progress
from shared.settings import Settings

STEP_TOKENS = 1024
"""Tokens of one step: some 150 ms on one core. Longer steps are no faster."""


class Encoder:
    """The kernel of an encoder: one forward pass for all texts. Its pieces are token ids with their types."""

    def __init__(self, network: BertNetwork) -> None:
        self.network = network
        self._compiled = compiled(network)

    def __call__(self, texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Tensor]:
        """The states of each text's tokens, float32 (tokens, width)."""
        lengths = [len(ids) for ids, _ in texts]
        network = self.network if active() else self._compiled
        with torch.inference_mode():
            states = network(
                torch.tensor([i for ids, _ in texts for i in ids]),
                torch.cat([torch.arange(length) for length in lengths]),
                torch.tensor([t for _, types in texts for t in types]),
                lengths,
            )
        return list(states.split(lengths))

    def room(self, texts: Sequence[tuple[Sequence[int], Sequence[int]]], another: tuple[Sequence[int], Any]) -> bool:
        return sum(len(ids) for ids, _ in texts) + len(another[0]) <= STEP_TOKENS

    def most_cores(self, texts: Sequence[Any]) -> int:
        return ONE_CORE


class BatchedSentenceEncoder(SentenceWindows):
    """A `SentenceEncoder` whose requests share their forward passes."""

    def __init__(
        self, network: BertNetwork, tokenizer: Any, max_tokens: int, pooler: dict[str, Any], *, int8: bool
    ) -> None:
        super().__init__(tokenizer, max_tokens, pooler)
        self.name = "torch-int8" if int8 else "torch-fp32"
        self.encoder = Encoder(network)
        self.dimensions = network.width
        self.nbytes = network.nbytes + sum(p.nbytes for p in self.pooler.values())

    def vectors(self, windows: Sequence[Sequence[int]], compute: Compute = run_here) -> list[np.ndarray]:
        found = compute.together(self.encoder, [(window, [0] * len(window)) for window in windows])
        return [torch.nn.functional.normalize(states.mean(0), dim=0).numpy() for states in found]

    def first_states(self, encodings: Sequence[Any], compute: Compute = run_here) -> Tensor:
        """The first token's last state of each encoding, float32 (encodings, width); for a head of an adapter's own."""
        found = compute.together(self.encoder, [(encoding.ids, encoding.type_ids) for encoding in encodings])
        return torch.stack([states[0] for states in found])

    def adaptable(self) -> BertLayers:
        """The linear layers, for an adapter."""
        return BertLayers(self.encoder.network)


class BertLayers:
    """The layers by their published names (`shared.engines.adapter.Layers`)."""

    prefix = "bert."

    def __init__(self, network: BertNetwork) -> None:
        self._network = network
        outs = {"inner": network.inner}
        ins = {"outer": network.inner}
        self.shapes = {
            f"encoder.layer.{n}.{name}": (outs.get(own, network.width), ins.get(own, network.width))
            for n in range(len(network.layers))
            for own, names in PARTS.items()
            for name in names
        }

    def fit(self, name: str, delta: Any) -> Any:
        return delta

    def teach(self) -> None:
        for number, layer in enumerate(self._network.layers):
            for own, names in PARTS.items():
                full = [f"encoder.layer.{number}.{name}" for name in names]
                teach(getattr(layer, own), {name: self.shapes[name][0] for name in full})


# -- loading ---------------------------------------------------------------------------------------


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most: those of the reference engine."""
    return sentence_encoder.memory_bytes(checkpoint)


def why_not(settings: Settings) -> str:
    """Why the reference runs here instead; "" where this engine does: in float32 where the processor has no int8."""
    return "SUITE_ENGINES is set to reference" if settings.engines == "reference" else ""


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> SentenceWindows:
    """Reads a verified folder. Raises as the reference engine does."""
    from transformers import BertConfig

    config = BertConfig.from_pretrained(folder, local_files_only=True)
    reference = sentence_encoder.load(checkpoint, folder, settings, progress)
    if why_not(settings) or not applies(config):
        return reference
    int8 = processor_has_int8()
    network = BertNetwork(reference.model.state_dict(), config, int8=int8)
    engine = BatchedSentenceEncoder(network, reference.tokenizer, reference.max_tokens, reference.pooler, int8=int8)
    for length in (2, 2, 3):
        engine.encoder([([0] * length, [0] * length)])  # TorchScript looks at the first passes for what to improve
    return engine
