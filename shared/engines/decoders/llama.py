"""Llama-like decoders (SmolLM2, Llama 2 and 3).

Grouped-query attention, rotary positions, RMS norms, SwiGLU (Touvron et al. 2023; Ainslie et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.engines.decoders.network import DecoderNetwork, Published, Shape, pack_embeddings
from shared.engines.kernels.attention import Sequences, rotate
from shared.engines.kernels.elementwise import rms_norm, swiglu
from shared.engines.kernels.llama import Llama, forward_llama
from shared.engines.packed.weights import pack

NORMS = ("input_layernorm", "post_attention_layernorm")


class LlamaNetwork(DecoderNetwork):
    """Equals transformers' `LlamaForCausalLM` (tested)."""

    model_type, prefix, layer = "llama", "model.", "model.layers.{}."

    def __init__(self, weights: Mapping[str, Tensor], shape: Shape) -> None:
        super().__init__(weights, shape)
        assert shape.theta is not None, "positions are rotary"
        rates = 1.0 / shape.theta ** (torch.arange(0, shape.head_size, 2).float() / shape.head_size)
        angles = torch.arange(shape.positions).float()[:, None] * rates
        self.stacked = Llama(
            **self.matrices,
            inner=shape.inner,
            norms=self.norms,
            cosines=angles.cos().numpy(),
            sines=angles.sin().numpy(),
            heads=self.heads,
            epsilon=shape.epsilon,
        )
        self.nbytes += 2 * angles.nbytes

    def forward(self, x: np.ndarray, sequences: Sequences) -> None:
        forward_llama(self.stacked, x, sequences)

    def add_positions(self, x: np.ndarray, positions: np.ndarray) -> None:
        """Nothing: attention rotates queries and keys instead."""

    def rotate(self, qkv: np.ndarray, positions: np.ndarray) -> None:
        rotate(qkv, self.heads, self.stacked.cosines, self.stacked.sines, positions)

    def normalize(self, x: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
        rms_norm(x, weights, self.shape.epsilon, out)

    def activate(self, x: np.ndarray, out: np.ndarray) -> None:
        swiglu(x, out)

    # -- weights -------------------------------------------------------------------------------------

    @staticmethod
    def shape_of(config: Any) -> Shape | None:
        rope = getattr(config, "rope_parameters", None) or {}
        known = (
            config.hidden_act == "silu"
            and not config.attention_bias
            and not config.mlp_bias
            and rope.get("rope_type", "default") == "default"
            and rope.get("partial_rotary_factor", 1.0) == 1.0
            and all(size % 4 == 0 for size in (config.hidden_size, config.intermediate_size, config.head_dim))
        )
        if not known:
            return None
        return Shape(
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_size=config.head_dim,
            width=config.hidden_size,
            inner=config.intermediate_size,
            vocabulary=config.vocab_size,
            epsilon=config.rms_norm_eps,
            positions=config.max_position_embeddings,
            theta=float(rope["rope_theta"]),
        )

    @staticmethod
    def published(shape: Shape) -> Published:
        queries, kv = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
        width, inner = shape.width, shape.inner
        return {
            "qkv": {
                "self_attn.q_proj": (queries, width),
                "self_attn.k_proj": (kv, width),
                "self_attn.v_proj": (kv, width),
            },
            "attention_output": {"self_attn.o_proj": (width, queries)},
            "gate_up": {"mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width)},
            "down": {"mlp.down_proj": (width, inner)},
        }

    @classmethod
    def pack(cls, state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        found = {"norm": state["model.norm.weight"].float().contiguous()}
        found |= pack_embeddings(state, "model.embed_tokens.weight")
        layers = [cls.layer.format(number) for number in range(shape.layers)]
        found["norms"] = torch.stack([torch.stack([state[f"{at}{n}.weight"].float() for n in NORMS]) for at in layers])
        for own, names in cls.published(shape).items():
            found |= pack(own, [torch.cat([state[f"{at}{name}.weight"].float() for name in names]) for at in layers])
        return found
