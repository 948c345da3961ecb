"""The forward pass of BERT (Devlin et al. 2019) for many texts at once, weights in int8 where the processor has it.

The tokens of all texts are one matrix, without padding; only attention looks at each text by itself, so what a text
gets is the same whatever is computed beside it. Activations are written with two int8 digits: with one, MiniLM's
vectors differ by 0.0025 in cosine from float32's, with two by 0.0005, which is the rounding of the weights alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import List  # noqa: UP035 - TorchScript reads it

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from shared.engines.int8_linear import FloatLinear, Int8Linear, int8_rows
from shared.engines.unpadded_attention import unpadded_attention

PARTS = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attended": ("attention.output.dense",),
    "inner": ("intermediate.dense",),
    "outer": ("output.dense",),
}
"""Which published layers one of the network's own holds, one below the other."""


class Layer(nn.Module):
    def __init__(self, weights: Mapping[str, Tensor], at: str, heads: int, epsilon: float, int8: bool) -> None:
        super().__init__()
        self.heads, self.epsilon = heads, epsilon
        self.qkv, self.attended, self.inner, self.outer = (
            _linear(weights, [f"{at}{name}" for name in names], int8) for names in PARTS.values()
        )
        self.attended_norm, self.attended_shift = _norm(weights, f"{at}attention.output.LayerNorm")
        self.outer_norm, self.outer_shift = _norm(weights, f"{at}output.LayerNorm")

    def forward(self, x: Tensor, lengths: List[int]) -> Tensor:  # noqa: UP006
        x = x + self.attended(unpadded_attention(self.qkv(x), lengths, self.heads))
        x = F.layer_norm(x, [x.shape[1]], self.attended_norm, self.attended_shift, self.epsilon)
        x = x + self.outer(F.gelu(self.inner(x)))
        return F.layer_norm(x, [x.shape[1]], self.outer_norm, self.outer_shift, self.epsilon)


class BertNetwork(nn.Module):
    def __init__(self, weights: Mapping[str, Tensor], config: BertConfig, *, int8: bool) -> None:
        """`weights` by transformers' names of `BertModel`, float32."""
        super().__init__()
        self.epsilon = config.layer_norm_eps
        self.width, self.inner, self.heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
        self.words, self.places, self.types = (
            nn.Buffer(weights[f"embeddings.{kind}_embeddings.weight"]) for kind in ("word", "position", "token_type")
        )
        self.norm, self.shift = _norm(weights, "embeddings.LayerNorm")
        self.layers = nn.ModuleList(
            Layer(weights, f"encoder.layer.{n}.", self.heads, self.epsilon, int8)
            for n in range(config.num_hidden_layers)
        )
        linear = [module.nbytes for module in self.modules() if isinstance(module, (Int8Linear, FloatLinear))]
        self.nbytes = sum(linear) + sum(buffer.nbytes for buffer in self.buffers())

    def forward(self, ids: Tensor, places: Tensor, types: Tensor, lengths: List[int]) -> Tensor:  # noqa: UP006
        """The last layer's states, float32 (tokens, width), of the tokens of all texts one after the other.

        `ids`, `places` (0, 1, … in each text) and `types` are int64 (tokens,); `lengths`: tokens of each text.
        """
        x = self.words[ids] + self.places[places] + self.types[types]
        x = F.layer_norm(x, [x.shape[1]], self.norm, self.shift, self.epsilon)
        for layer in self.layers:
            x = layer(x, lengths)
        return x


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
    )


def _norm(weights: Mapping[str, Tensor], name: str) -> tuple[nn.Buffer, nn.Buffer]:
    """Copies, or these few numbers would hold the whole file's mapping."""
    return nn.Buffer(weights[f"{name}.weight"].clone()), nn.Buffer(weights[f"{name}.bias"].clone())


def _linear(weights: Mapping[str, Tensor], names: Sequence[str], int8: bool) -> Int8Linear | FloatLinear:
    """One product for several matrices that read the same input."""
    matrix = torch.cat([weights[f"{name}.weight"] for name in names])
    bias = torch.cat([weights[f"{name}.bias"] for name in names])
    return Int8Linear(*int8_rows(matrix), 2, bias) if int8 else FloatLinear(matrix, bias)
