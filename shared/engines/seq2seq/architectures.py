"""The architectures of encoder-decoders that the batched engine implements."""

from __future__ import annotations

from typing import Any

from shared.engines.packed.converted import architecture_in
from shared.engines.seq2seq.bart import M2M100Network, OpusNetwork
from shared.engines.seq2seq.network import Seq2SeqNetwork, Shape
from shared.engines.seq2seq.t5 import T5Network

ARCHITECTURES: tuple[type[Seq2SeqNetwork], ...] = (T5Network, OpusNetwork, M2M100Network)


def architecture_of(config: Any) -> tuple[type[Seq2SeqNetwork], Shape] | None:
    """The network that computes a checkpoint with this config, and its shape; None where none does."""
    return architecture_in(ARCHITECTURES, config)
