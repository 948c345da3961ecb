"""Which architectures of encoder-decoders are written down here."""

from __future__ import annotations

from typing import Any

from shared.engines.seq2seq.bart import M2M100Network, OpusNetwork
from shared.engines.seq2seq.network import Seq2SeqNetwork, Shape
from shared.engines.seq2seq.t5 import T5Network

ARCHITECTURES: tuple[type[Seq2SeqNetwork], ...] = (T5Network, OpusNetwork, M2M100Network)


def architecture_of(config: Any) -> tuple[type[Seq2SeqNetwork], Shape] | None:
    """The network that computes a checkpoint with this config, and its shape; None where none does."""
    for network in ARCHITECTURES:
        if network.model_type == config.model_type and (shape := network.shape_of(config)) is not None:
            return network, shape
    return None
