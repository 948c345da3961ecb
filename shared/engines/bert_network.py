"""The forward pass of BERT (Devlin et al. 2019) for many texts at once, weights in int8 where the processor has it.

The tokens of all texts are one matrix, without padding; only attention looks at each text by itself, so what a text
gets is the same whatever is computed beside it. Activations are written with two int8 digits: with one, MiniLM's
vectors differ by 0.0025 in cosine from float32's, with two by 0.0005, which is the rounding of the weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, List  # noqa: UP035 - TorchScript reads it

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from shared.engines.int8_linear import FloatLinear, Int8Linear, int8_rows

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
        attended: List[Tensor] = []  # noqa: UP006
        for text in self.qkv(x).split(lengths):
            # (tokens, 3 * width) to queries, keys and values of shape (heads, tokens, width / heads)
            q, k, v = text.view(text.shape[0], 3, self.heads, -1).permute(1, 2, 0, 3).unsqueeze(1).unbind(0)
            found = F.scaled_dot_product_attention(q, k, v)
            attended.append(found[0].transpose(0, 1).reshape(text.shape[0], x.shape[1]))
        x = x + self.attended(torch.cat(attended))
        x = F.layer_norm(x, [x.shape[1]], self.attended_norm, self.attended_shift, self.epsilon)
        x = x + self.outer(F.gelu(self.inner(x)))
        return F.layer_norm(x, [x.shape[1]], self.outer_norm, self.outer_shift, self.epsilon)


class BertNetwork(nn.Module):
    def __init__(self, weights: Mapping[str, Tensor], config: Any, *, int8: bool) -> None:
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


def applies(config: Any) -> bool:
    """Whether this is what a checkpoint's config describes."""
    return (
        config.model_type == "bert"
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") in ("absolute", None)
        and not getattr(config, "is_decoder", False)
    )


def _norm(weights: Mapping[str, Tensor], name: str) -> tuple[nn.Buffer, nn.Buffer]:
    return nn.Buffer(weights[f"{name}.weight"]), nn.Buffer(weights[f"{name}.bias"])


def _linear(weights: Mapping[str, Tensor], names: Sequence[str], int8: bool) -> Int8Linear | FloatLinear:
    """One product for several matrices that read the same input."""
    matrix = torch.cat([weights[f"{name}.weight"] for name in names])
    bias = torch.cat([weights[f"{name}.bias"] for name in names])
    return Int8Linear(*int8_rows(matrix), 2, bias) if int8 else FloatLinear(matrix, bias)
