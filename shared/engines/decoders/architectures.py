"""Which architectures of decoders are written down here."""

from __future__ import annotations

from typing import Any

from shared.engines.decoders.gpt2 import Gpt2Network
from shared.engines.decoders.llama import LlamaNetwork
from shared.engines.decoders.network import DecoderNetwork, Shape

ARCHITECTURES: tuple[type[DecoderNetwork], ...] = (LlamaNetwork, Gpt2Network)


def architecture_of(config: Any) -> tuple[type[DecoderNetwork], Shape] | None:
    """The network that computes a checkpoint with this config, and its shape; None where none does."""
    for network in ARCHITECTURES:
        if network.model_type == config.model_type and (shape := network.shape_of(config)) is not None:
            return network, shape
    return None
