"""Marian in the Hub's format (opus-mt), and M2M100 with small100: transformers derives both from BART.

Sinusoidal positions, layer norms and biases everywhere. Marian has its norms after each part, and a bias for each
token's logit; M2M100 has them before each part and after the last layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from shared.engines.kernels.elementwise import GELU, GELU_TANH, RELU, SILU, Style
from shared.engines.kernels.products import add_positions
from shared.engines.packed.positions import sinusoids
from shared.engines.seq2seq.network import Published, Seq2SeqNetwork, Shape

ACTIVATIONS = {"relu": RELU, "gelu": GELU, "gelu_new": GELU_TANH, "swish": SILU, "silu": SILU}
EPSILON = 1e-5
"""PyTorch's default for layer norms."""


class BartLike(Seq2SeqNetwork):
    """The base class of both."""

    prefix, layer, published_embedding = "model.", "model.{side}.layers.{number}.", "model.shared.weight"
    positions: np.ndarray
    """float32 (positions, width)."""

    def relative_bias(self, weights: Mapping[str, Tensor], side: str) -> None:
        """Nothing: positions are added to the embeddings."""

    def add_positions(self, x: np.ndarray, ids: Sequence[np.ndarray], before: Sequence[int]) -> None:
        rows = [self.position_rows(some, start) for some, start in zip(ids, before, strict=True)]
        add_positions(x, np.concatenate(rows), self.positions)

    def position_rows(self, ids: np.ndarray, before: int) -> np.ndarray:
        """Rows of `positions` for a sequence's tokens."""
        return np.arange(before, before + len(ids))

    @staticmethod
    def published(shape: Shape, side: str) -> Published:
        width, inner = shape.width, shape.inner[0 if side == "encoder" else 1]
        square = (width, width)
        found = {
            "qkv": {f"self_attn.{name}_proj": square for name in "qkv"},
            "attention_output": {"self_attn.out_proj": square},
            "up": {"fc1": (inner, width)},
            "down": {"fc2": (width, inner)},
        }
        if side == "decoder":
            found["queries"] = {"encoder_attn.q_proj": square}
            found["keys_values"] = {f"encoder_attn.{name}_proj": square for name in "kv"}
            found["cross_attention_output"] = {"encoder_attn.out_proj": square}
        return found

    @staticmethod
    def norms(side: str) -> Sequence[str]:
        across = ["encoder_attn_layer_norm"] if side == "decoder" else []
        return ["self_attn_layer_norm", *across, "final_layer_norm"]


def _shape_of(config: Any, *, before: bool, positions: int | None) -> Shape | None:
    width, heads = config.d_model, (config.encoder_attention_heads, config.decoder_attention_heads)
    inner = (config.encoder_ffn_dim, config.decoder_ffn_dim)
    known = (
        config.activation_function in ACTIVATIONS
        and config.tie_word_embeddings
        and heads[0] == heads[1]
        and width % heads[0] == 0
        and all(size % 4 == 0 for size in (width, *inner, width // heads[0]))
    )
    if not known:
        return None
    return Shape(
        layers=(config.encoder_layers, config.decoder_layers),
        heads=heads,
        inner=inner,
        head_size=width // heads[0],
        width=width,
        vocabulary=config.vocab_size,
        style=Style(before, False, ACTIVATIONS[config.activation_function], False, EPSILON),
        embedding_scale=math.sqrt(width) if config.scale_embedding else 1.0,
        positions=positions,
        padding=config.pad_token_id,
    )


class OpusNetwork(BartLike):
    """Equals transformers' `MarianMTModel` (tested)."""

    model_type = "marian"

    def __init__(self, weights: Mapping[str, Tensor], shape: Shape, longest: int) -> None:
        super().__init__(weights, shape, longest)
        self.positions = weights["positions"].numpy()

    @staticmethod
    def shape_of(config: Any) -> Shape | None:
        if not config.share_encoder_decoder_embeddings:
            return None
        return _shape_of(config, before=False, positions=config.max_position_embeddings)

    @staticmethod
    def last_norm(side: str) -> None:
        return None

    @classmethod
    def pack_more(cls, state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        positions = state["model.decoder.embed_positions.weight"].float().contiguous()
        return {"output_bias": state["final_logits_bias"][0].float().contiguous(), "positions": positions}


class M2M100Network(BartLike):
    """Equals transformers' `M2M100ForConditionalGeneration` (tested). Its positions are unlimited."""

    model_type = "m2m_100"

    def __init__(self, weights: Mapping[str, Tensor], shape: Shape, longest: int) -> None:
        super().__init__(weights, shape, longest)
        # Counted from behind the padding token's number, as fairseq does; the padding token has none.
        positions = sinusoids(self.longest + shape.padding + 1, shape.width)
        positions[shape.padding] = 0
        self.positions = positions.numpy()
        self.nbytes += positions.nbytes

    def position_rows(self, ids: np.ndarray, before: int) -> np.ndarray:
        real = ids != self.shape.padding
        return np.where(real, np.cumsum(real) + before, 0) + self.shape.padding

    @staticmethod
    def shape_of(config: Any) -> Shape | None:
        return _shape_of(config, before=True, positions=None)

    @staticmethod
    def last_norm(side: str) -> str:
        return f"model.{side}.layer_norm"
