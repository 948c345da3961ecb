"""The forward pass of BERT (Devlin et al. 2019) for many texts at once, weights in int8.

The tokens of all texts are one matrix, without padding; only attention looks at each text by itself, so what a text
gets is the same whatever is computed beside it, to the last bit. All layers are one call of compiled code or, with an
adapter, computed one by one, so that it can add its part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.engines.adapters.deltas import active
from shared.engines.kernels.attention import Heads, attend_texts
from shared.engines.kernels.elementwise import GELU, Style, add, gelu, layer_norm
from shared.engines.kernels.encoder import Encoder, forward_encoder
from shared.engines.kernels.products import affine_of
from shared.engines.packed.matrices import Product, matrix_in, number_format
from shared.engines.packed.weights import pack, pack_rounded

PARTS = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_output": ("attention.output.dense",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
}
"""Which published layers one of the network's own holds, one below the other."""
NORMS = ("attention.output.LayerNorm", "output.LayerNorm")


class BertNetwork:
    def __init__(self, weights: Mapping[str, Tensor], config: BertConfig, *, int8: bool = True) -> None:
        """`weights` by transformers' names of `BertModel`, float32; with `int8` those of the layers are rounded."""
        self.config, self.width = config, config.hidden_size
        self.words, self.places, self.types = (
            weights[f"embeddings.{kind}_embeddings.weight"].numpy() for kind in ("word", "position", "token_type")
        )
        self.norm = _norm(weights, "embeddings.LayerNorm").numpy()
        at = [f"encoder.layer.{n}." for n in range(config.num_hidden_layers)]
        own: dict[str, Tensor] = {}
        for part, names in PARTS.items():
            published = [torch.cat([weights[f"{layer}{name}.weight"] for name in names]) for layer in at]
            own |= pack_rounded(part, published) if int8 else pack(part, published)
            biases = [torch.cat([weights[f"{layer}{name}.bias"] for name in names]) for layer in at]
            own[f"{part}.bias"] = torch.stack(biases)
        norms = torch.stack([torch.stack([_norm(weights, f"{layer}{name}") for name in NORMS]) for layer in at])
        matrices: dict[str, Any] = {part: matrix_in(own, part) for part in PARTS}
        self.number_format = number_format(matrices["down"])
        self.stacked = Encoder(
            **matrices,
            inner=config.intermediate_size,
            norms=norms.numpy(),
            heads=Heads(
                len(at),
                config.num_attention_heads,
                config.num_attention_heads,
                self.width // config.num_attention_heads,
            ),
            style=Style(before=False, rms=False, activation=GELU, gated=False, epsilon=config.layer_norm_eps),
        )
        self.layers = [
            {part: Product(affine_of(matrix, n), matrix.bias.shape[1]) for part, matrix in matrices.items()}
            for n in range(len(at))
        ]
        embeddings = self.words.nbytes + self.places.nbytes + self.types.nbytes
        self.nbytes = sum(tensor.nbytes for tensor in own.values()) + norms.nbytes + self.norm.nbytes + embeddings

    def states(self, ids: Sequence[int], types: Sequence[int], lengths: Sequence[int]) -> np.ndarray:
        """The last layer's states, float32 (tokens, width), of the tokens of all texts one after the other.

        `lengths`: tokens of each text. Raises `IndexError` for a token or position that the network does not have.
        """
        counts = np.array(lengths, np.int64)
        places = np.concatenate([np.arange(length) for length in lengths])
        x = self.words[np.array(ids)] + self.places[places] + self.types[np.array(types)]
        layer_norm(x, self.norm, self.stacked.style.epsilon, x)
        if active() is None:
            forward_encoder(self.stacked, x, counts)
        else:
            for number in range(len(self.layers)):
                self._one_layer(number, x, counts)
        return x

    def _one_layer(self, number: int, x: np.ndarray, lengths: np.ndarray) -> None:
        """As in `forward_encoder`, with matrices that an adapter can change."""
        to_qkv, to_attention_output, to_inner, to_outer = self.layers[number].values()
        norms, epsilon = self.stacked.norms[number], self.stacked.style.epsilon
        attended = np.empty_like(x)
        attend_texts(self.stacked.heads, to_qkv.of(x), lengths, attended)
        add(x, to_attention_output.of(attended))
        layer_norm(x, norms[0], epsilon, x)
        activated = np.empty((len(x), self.stacked.inner), np.float32)
        gelu(to_inner.of(x), activated)
        add(x, to_outer.of(activated))
        layer_norm(x, norms[1], epsilon, x)


@dataclass(frozen=True)
class BertConfig:
    """What a checkpoint's config.json says, by transformers' names; what it leaves out is as BERT was published."""

    model_type: str = ""
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    position_embedding_type: str | None = "absolute"
    is_decoder: bool = False


def read_config(path: Path) -> BertConfig:
    known = {field.name for field in fields(BertConfig)}
    said = json.loads(path.read_text(encoding="utf-8"))
    return BertConfig(**{name: value for name, value in said.items() if name in known})


def applies(config: BertConfig) -> bool:
    """Whether this network is what a checkpoint's config describes."""
    return (
        config.model_type == "bert"
        and config.hidden_act == "gelu"
        and config.position_embedding_type in ("absolute", None)
        and not config.is_decoder
        and config.hidden_size % config.num_attention_heads == 0
        and all(size % 4 == 0 for size in (config.hidden_size, config.intermediate_size))
        and config.hidden_size // config.num_attention_heads % 4 == 0
    )


def _norm(weights: Mapping[str, Tensor], name: str) -> Tensor:
    """Factors, and what is added: (2, width)."""
    return torch.stack([weights[f"{name}.weight"], weights[f"{name}.bias"]])
