"""T5 (Raffel et al. 2020), and FLAN-T5, which is T5 1.1.

RMS norms before each part, no biases, and positions in attention alone: a bias for each distance between two tokens.
T5 1.1 has gated feed-forward layers and a separate output matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.engines.kernels.elementwise import GELU_TANH, RELU, SILU, Style
from shared.engines.seq2seq.network import Published, Seq2SeqNetwork, Shape

ACTIVATIONS = {"relu": RELU, "gelu_new": GELU_TANH, "silu": SILU}
RELATIVE_BIAS = "{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


class T5Network(Seq2SeqNetwork):
    """Equals transformers' `T5ForConditionalGeneration` (tested)."""

    model_type, prefix, layer = "t5", "transformer.", "{side}.block.{number}.layer."
    published_embedding = "shared.weight"

    def relative_bias(self, weights: Mapping[str, Tensor], side: str) -> np.ndarray:
        shape = self.shape
        distances = torch.arange(-self.longest + 1, self.longest)
        buckets = buckets_of(distances, shape.buckets, shape.max_distance, both_ways=side == "encoder")
        return weights[f"{side}.relative_bias"][buckets].T.contiguous().numpy()

    def add_positions(self, x: np.ndarray, ids: Sequence[np.ndarray], before: Sequence[int]) -> None:
        """Nothing: attention has a relative bias instead."""

    # -- weights -------------------------------------------------------------------------------------

    @staticmethod
    def shape_of(config: Any) -> Shape | None:
        inner = config.num_heads * config.d_kv
        known = config.dense_act_fn in ACTIVATIONS and all(
            size % 4 == 0 for size in (config.d_model, config.d_ff, config.d_kv, inner)
        )
        if not known:
            return None
        style = Style(True, True, ACTIVATIONS[config.dense_act_fn], config.is_gated_act, config.layer_norm_epsilon)
        return Shape(
            layers=(config.num_layers, config.num_decoder_layers),
            heads=(config.num_heads, config.num_heads),
            inner=(config.d_ff, config.d_ff),
            head_size=config.d_kv,
            width=config.d_model,
            vocabulary=config.vocab_size,
            style=style,
            scaled=False,
            output_scale=config.d_model**-0.5 if config.scale_decoder_outputs else 1.0,
            buckets=config.relative_attention_num_buckets,
            max_distance=config.relative_attention_max_distance,
        )

    @staticmethod
    def published(shape: Shape, side: str) -> Published:
        wide, width, (inner, _) = shape.heads[0] * shape.head_size, shape.width, shape.inner
        last = 1 if side == "encoder" else 2
        gated = ("wi_0", "wi_1") if shape.style.gated else ("wi",)
        found = {
            "qkv": {f"0.SelfAttention.{name}": (wide, width) for name in "qkv"},
            "attention_output": {"0.SelfAttention.o": (width, wide)},
            "up": {f"{last}.DenseReluDense.{name}": (inner, width) for name in gated},
            "down": {f"{last}.DenseReluDense.wo": (width, inner)},
        }
        if side == "decoder":
            found["queries"] = {"1.EncDecAttention.q": (wide, width)}
            found["keys_values"] = {f"1.EncDecAttention.{name}": (wide, width) for name in "kv"}
            found["cross_attention_output"] = {"1.EncDecAttention.o": (width, wide)}
        return found

    @staticmethod
    def norms(side: str) -> Sequence[str]:
        return [f"{part}.layer_norm" for part in range(2 if side == "encoder" else 3)]

    @staticmethod
    def last_norm(side: str) -> str:
        return f"{side}.final_layer_norm"

    @classmethod
    def pack_more(cls, state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        """(buckets, heads): the first layer's, which all layers use."""
        return {
            f"{side}.relative_bias": state[RELATIVE_BIAS.format(side=side)].float().contiguous()
            for side in ("encoder", "decoder")
        }


def buckets_of(distances: Tensor, buckets: int, max_distance: int, *, both_ways: bool) -> Tensor:
    """The bucket of each distance, which is negative to earlier tokens: half of them for one distance each, then wider.

    Equals transformers' `T5Attention._relative_position_bucket` (tested). Where attention does not look ahead, later
    tokens count as distance 0, and are never asked for.
    """
    found = torch.zeros_like(distances)
    if both_ways:
        buckets //= 2
        found += (distances > 0) * buckets
        away = distances.abs()
    else:
        away = (-distances).clamp_min(0)
    exact = buckets // 2
    wider = torch.log(away.clamp_min(1).float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    return found + torch.where(away < exact, away, (exact + wider.long()).clamp_max(buckets - 1))
