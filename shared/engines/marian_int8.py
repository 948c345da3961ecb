"""The forward passes of Marian's tiny models in the int8 of their files, for many sentences at once.

`marian_network` is the reference and says what is computed. Here every matrix keeps the file's integers, activations
are written with two int8 digits (nearly exact), and no sentence is padded to another's length, so what a sentence gets
is the same whatever is computed beside it. Plain enough for TorchScript, which runs a pass without Python.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, List  # noqa: UP035 - TorchScript reads it

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from shared.engines.int8_linear import Int8Linear
from shared.engines.marian_file import EMBEDDINGS, MarianFile
from shared.engines.marian_network import LAYER_NORM_EPSILON, FeedForward, Norm, Weights, sinusoids
from shared.errors import WeightsCorrupt


class Int8Weights(Weights):
    """Takes the integers of the file as they are."""

    def _linear(self, matrix: np.ndarray, bias: np.ndarray, names: Sequence[str]) -> Int8Linear:
        if missing := [name for name in names if name not in self.file.multipliers]:
            raise WeightsCorrupt(f"the Marian model's {missing[0]} is not int8")
        sizes = np.concatenate([np.full(self.file.tensors[n].shape[1], 1 / self.file.multipliers[n]) for n in names])
        size = torch.from_numpy(sizes.astype(np.float32))
        integers = (torch.from_numpy(matrix).T / size[:, None]).round().to(torch.int8)
        return Int8Linear(integers, size, 2, torch.from_numpy(bias[0]))


class EncoderLayer(nn.Module):
    def __init__(self, weights: Int8Weights, at: str, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv: Any = weights.linear(f"{at}_self_W", f"{at}_self_b", "qkv")
        self.attended: Any = weights.linear(f"{at}_self_W", f"{at}_self_b", "o")
        self.norm = _Norm(weights.norm(f"{at}_self_Wo"))
        self.feed_forward = _FeedForward(weights.feed_forward(f"{at}_ffn"))

    def forward(self, x: Tensor, lengths: List[int]) -> Tensor:  # noqa: UP006
        attended: List[Tensor] = []  # noqa: UP006
        for one in self.qkv(x).split(lengths):
            q, k, v = one.view(one.shape[0], 3, self.heads, -1).permute(1, 2, 0, 3).unsqueeze(1).unbind(0)
            found = F.scaled_dot_product_attention(q, k, v)
            attended.append(found[0].transpose(0, 1).reshape(one.shape[0], x.shape[1]))
        return self.feed_forward(self.norm(x + self.attended(torch.cat(attended))))


class DecoderLayer(nn.Module):
    def __init__(self, weights: Int8Weights, at: str, heads: int, number: int) -> None:
        super().__init__()
        self.heads, self.number = heads, number
        self.candidate_forget: Any = weights.ssru(f"{at}_rnn")
        self.cell_norm = _Norm(weights.norm(f"{at}_rnn_ffn"))
        self.queries: Any = weights.linear(f"{at}_context_W", f"{at}_context_b", "q")
        self.keys_values: Any = weights.linear(f"{at}_context_W", f"{at}_context_b", "kv")
        self.attended: Any = weights.linear(f"{at}_context_W", f"{at}_context_b", "o")
        self.norm = _Norm(weights.norm(f"{at}_context_Wo"))
        self.feed_forward = _FeedForward(weights.feed_forward(f"{at}_ffn"))

    def forward(self, x: Tensor, cells: Tensor, sources: List[Tensor]) -> Tensor:  # noqa: UP006
        """`cells` (lines, width) is changed in place."""
        candidate, forget = self.candidate_forget(x).chunk(2, 1)
        cells.copy_(torch.lerp(candidate, cells, torch.sigmoid(forget)))
        x = self.cell_norm(x + torch.relu(cells))
        queries = self.queries(x).view(x.shape[0], 1, self.heads, 1, -1)
        attended: List[Tensor] = []  # noqa: UP006
        for line in range(len(sources)):
            source = sources[line][self.number]
            attended.append(F.scaled_dot_product_attention(queries[line], source[0:1], source[1:2]).view(1, -1))
        return self.feed_forward(self.norm(x + self.attended(torch.cat(attended))))


class Encoder(nn.Module):
    def __init__(self, weights: Int8Weights, layers: Sequence[nn.Module], decoder: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.keys_values = nn.ModuleList(layer.keys_values for layer in decoder)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, lengths: List[int]) -> Tensor:  # noqa: UP006
        """Embedded source tokens (tokens, width) to their keys and values, (decoder layers, tokens, 2 * width)."""
        for layer in self.layers:
            x = layer(x, lengths)
        found: List[Tensor] = []  # noqa: UP006
        for keys_values in self.keys_values:
            found.append(keys_values(x))  # noqa: PERF401
        return torch.stack(found)


class Decoder(nn.Module):
    def __init__(self, layers: Sequence[nn.Module], output: nn.Module) -> None:
        super().__init__()
        self.layers, self.output = nn.ModuleList(layers), output

    def forward(self, x: Tensor, cells: Tensor, sources: List[Tensor]) -> Tensor:  # noqa: UP006
        """One token a line: embedded tokens (lines, width) to logits (lines, vocabulary).

        `cells` (decoder layers, lines, width) is changed in place; `sources`: each line's keys and values,
        (decoder layers, 2, heads, source tokens, width / heads).
        """
        for number, layer in enumerate(self.layers):
            x = layer(x, cells[number], sources)
        return self.output(x)


class MarianInt8Network:
    """Encoder and decoder with the embeddings they share."""

    def __init__(self, file: MarianFile, longest: int, unknown: int) -> None:
        """`longest` is the most tokens of a source or target, `unknown` the id that is never written."""
        weights = Int8Weights(file)
        heads = weights.option("transformer-heads")
        layers = [EncoderLayer(weights, f"encoder_l{n}", heads) for n in range(1, weights.option("enc-depth") + 1)]
        decoder = [
            DecoderLayer(weights, f"decoder_l{n}", heads, n - 1) for n in range(1, weights.option("dec-depth") + 1)
        ]
        multiplier = file.multipliers.get(EMBEDDINGS)
        if multiplier is None:
            raise WeightsCorrupt(f"the Marian model's {EMBEDDINGS} is missing or not int8")
        self.integers = torch.from_numpy(np.rint(file.tensors[EMBEDDINGS] * np.float32(multiplier)).astype(np.int8))
        bias = torch.from_numpy(file.tensors["decoder_ff_logit_out_b"][0].copy())
        bias[unknown] = -math.inf
        self.scale = math.sqrt(self.integers.shape[1]) / multiplier
        output = Int8Linear(self.integers, torch.full((len(self.integers),), 1 / multiplier), 2, bias)
        self.positions = sinusoids(longest, weights.dimensions)
        self.heads, self.layers, self.width = heads, len(decoder), weights.dimensions
        self.encoder, self.decoder = Encoder(weights, layers, decoder), Decoder(decoder, output)
        linear = {
            id(m): m.nbytes
            for part in (self.encoder, self.decoder)
            for m in part.modules()
            if isinstance(m, Int8Linear)
        }
        self.nbytes = sum(linear.values()) + self.integers.nbytes + self.positions.nbytes + weights.nbytes

    def embedded(self, ids: Tensor, places: Tensor) -> Tensor:
        """Token ids at their places in a sentence, float32 (tokens, width)."""
        return self.integers[ids].float() * self.scale + self.positions[places]


class _Norm(nn.Module):
    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.scale, self.bias, self.epsilon = nn.Buffer(norm.scale), nn.Buffer(norm.bias), LAYER_NORM_EPSILON

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, [x.shape[1]], self.scale, self.bias, self.epsilon)


class _FeedForward(nn.Module):
    def __init__(self, parts: FeedForward) -> None:
        super().__init__()
        self.inner: Any = parts.inner
        self.outer: Any = parts.outer
        self.norm = _Norm(parts.norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.outer(torch.relu(self.inner(x))))
