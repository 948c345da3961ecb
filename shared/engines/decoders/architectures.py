"""The architectures of decoders that the batched engine implements."""

from __future__ import annotations

from typing import Any

from shared.engines.decoders.gpt2 import Gpt2Network
from shared.engines.decoders.llama import LlamaNetwork
from shared.engines.decoders.network import DecoderNetwork, Shape
from shared.engines.packed.converted import architecture_in

ARCHITECTURES: tuple[type[DecoderNetwork], ...] = (LlamaNetwork, Gpt2Network)


def architecture_of(config: Any) -> tuple[type[DecoderNetwork], Shape] | None:
    """The network that computes a checkpoint with this config, and its shape; None where none does."""
    return architecture_in(ARCHITECTURES, config)
