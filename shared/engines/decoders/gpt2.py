"""GPT-2 (Radford et al. 2019), and other models of its architecture, such as DialoGPT.

Learned positions, layer norms before each part and after the last, biases everywhere, GELU's tanh approximation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.engines.decoders.network import DecoderNetwork, Published, Shape, pack_embeddings
from shared.engines.kernels.attention import Sequences
from shared.engines.kernels.elementwise import gelu_tanh, layer_norm
from shared.engines.kernels.gpt2 import Gpt2, forward_gpt2
from shared.engines.kernels.products import add_positions
from shared.engines.packed.weights import pack

NORMS = ("ln_1", "ln_2")


class Gpt2Network(DecoderNetwork):
    """Equals transformers' `GPT2LMHeadModel` (tested)."""

    model_type, prefix, layer = "gpt2", "transformer.", "transformer.h.{}."

    def __init__(self, weights: Mapping[str, Tensor], shape: Shape) -> None:
        super().__init__(weights, shape)
        self.positions = weights["positions"].numpy()
        self.stacked = Gpt2(
            **self.matrices, inner=shape.inner, norms=self.norms, heads=self.heads, epsilon=shape.epsilon
        )

    def forward(self, x: np.ndarray, sequences: Sequences) -> None:
        forward_gpt2(self.stacked, x, sequences)

    def add_positions(self, x: np.ndarray, positions: np.ndarray) -> None:
        add_positions(x, positions, self.positions)

    def rotate(self, qkv: np.ndarray, positions: np.ndarray) -> None:
        """Nothing: positions are added to the embeddings."""

    def normalize(self, x: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
        layer_norm(x, weights, self.shape.epsilon, out)

    def activate(self, x: np.ndarray, out: np.ndarray) -> None:
        gelu_tanh(x, out)

    # -- weights -------------------------------------------------------------------------------------

    @staticmethod
    def shape_of(config: Any) -> Shape | None:
        width = config.n_embd
        inner = config.n_inner or 4 * width
        known = (
            config.activation_function == "gelu_new"
            and config.scale_attn_weights
            and not config.scale_attn_by_inverse_layer_idx
            and not config.reorder_and_upcast_attn
            and not config.add_cross_attention
            and width % config.n_head == 0
            and all(size % 4 == 0 for size in (width, inner, width // config.n_head))
        )
        if not known:
            return None
        return Shape(
            layers=config.n_layer,
            heads=config.n_head,
            kv_heads=config.n_head,
            head_size=width // config.n_head,
            width=width,
            inner=inner,
            vocabulary=config.vocab_size,
            epsilon=config.layer_norm_epsilon,
            positions=config.n_positions,
        )

    @staticmethod
    def published(shape: Shape) -> Published:
        width, inner = shape.width, shape.inner
        return {
            "qkv": {"attn.c_attn": (3 * width, width)},
            "attention_output": {"attn.c_proj": (width, width)},
            "up": {"mlp.c_fc": (inner, width)},
            "down": {"mlp.c_proj": (width, inner)},
        }

    @classmethod
    def pack(cls, state: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
        def norm(name: str) -> Tensor:
            return torch.stack([state[f"{name}.{part}"].float() for part in ("weight", "bias")])

        found = {"norm": norm("transformer.ln_f"), "positions": state["transformer.wpe.weight"].float().contiguous()}
        found |= pack_embeddings(state, "transformer.wte.weight")
        layers = [cls.layer.format(number) for number in range(shape.layers)]
        found["norms"] = torch.stack([torch.stack([norm(f"{at}{name}") for name in NORMS]) for at in layers])
        for own, names in cls.published(shape).items():
            (name,) = names
            # Published as a convolution's weights: (in, out).
            found |= pack(own, [state[f"{at}{name}.weight"].float().T.contiguous() for at in layers])
            found[f"{own}.bias"] = torch.stack([state[f"{at}{name}.bias"].float() for at in layers])
        return found
