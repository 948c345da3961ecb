"""The forward passes of Marian's tiny models for many sentences at once, the vocabulary in the int8 of the files.

`marian_network` is the reference and says what is computed. Here no sentence is padded to another's length, and the
class is plain enough for TorchScript, which runs a pass without Python. The matrices between the embeddings stay in
float32: they are so small (256 wide) that int8 takes longer for a few sentences, 90 µs instead of 10 to 50.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, List, Tuple  # noqa: UP035 - TorchScript reads these

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from shared.engines.int8_linear import FloatLinear, Int8Linear
from shared.engines.marian_file import EMBEDDINGS, MarianFile
from shared.engines.marian_network import LAYER_NORM_EPSILON, FeedForward, Norm, Weights, sinusoids
from shared.engines.unpadded_attention import unpadded_attention
from shared.errors import WeightsCorrupt


class ModuleWeights(Weights):
    """Gives layers that TorchScript can take."""

    def _linear(self, matrix: np.ndarray, bias: np.ndarray) -> FloatLinear:
        weight = torch.from_numpy(np.ascontiguousarray(matrix)).T  # lies as (in, out): a fifth faster for a few lines
        return FloatLinear(self.keep(weight), self.keep(torch.from_numpy(bias[0])))


SHORTLIST = 16
"""Tokens that are looked at closely."""


class EncoderLayer(nn.Module):
    def __init__(self, weights: ModuleWeights, at: str, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv: Any = weights.linear(f"{at}_self_W", f"{at}_self_b", "qkv")
        self.attended: Any = weights.linear(f"{at}_self_W", f"{at}_self_b", "o")
        self.norm = _Norm(weights.norm(f"{at}_self_Wo"))
        self.feed_forward = _FeedForward(weights.feed_forward(f"{at}_ffn"))

    def forward(self, x: Tensor, lengths: List[int]) -> Tensor:  # noqa: UP006
        attended = unpadded_attention(self.qkv(x), lengths, self.heads)
        return self.feed_forward(self.norm(x + self.attended(attended)))


class DecoderLayer(nn.Module):
    def __init__(self, weights: ModuleWeights, at: str, heads: int, number: int) -> None:
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
    def __init__(self, weights: ModuleWeights, layers: Sequence[nn.Module], decoder: Sequence[nn.Module]) -> None:
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
    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, cells: Tensor, sources: List[Tensor]) -> Tensor:  # noqa: UP006
        """One token a line: embedded tokens to states, (lines, width) each.

        `cells` (decoder layers, lines, width) is changed in place; `sources`: each line's keys and values,
        (decoder layers, 2, heads, source tokens, width / heads).
        """
        for number, layer in enumerate(self.layers):
            x = layer(x, cells[number], sources)
        return x


class Output(nn.Module):
    """The product with the whole vocabulary: most of a step, and reading the matrix most of it."""

    def __init__(self, integers: Tensor, multiplier: float, bias: Tensor) -> None:
        super().__init__()
        size = torch.full((len(integers),), 1 / multiplier)
        self.fine, self.coarse = Int8Linear(integers, size, 2, bias), Int8Linear(integers, size, 1, bias)
        self.coarse.packed = self.fine.packed
        self.integers, self.multiplier, self.bias = integers, multiplier, bias
        self.shortlist = SHORTLIST  # TorchScript sees no globals

    def forward(self, x: Tensor) -> Tensor:
        """States (lines, width) to logits (lines, vocabulary)."""
        return self.fine(x)

    @torch.jit.export
    def best(self, x: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """The likeliest token of each line and its log-probability.

        Activations of one int8 digit say which tokens come into question; those are then computed in float32.
        """
        logits = self.coarse(x)
        tokens = logits.topk(self.shortlist, 1)[1]
        weights = self.integers[tokens].float() / self.multiplier
        exact = torch.bmm(weights, x.unsqueeze(2)).squeeze(2) + self.bias[tokens]
        top, place = exact.max(1)
        # Nearly all of the probability is in the shortlist, or it is spread over thousands of tokens, whose rounding
        # cancels out.
        rest = logits.scatter(1, tokens, float("-inf")).logsumexp(1)
        total = torch.logaddexp(exact.logsumexp(1), rest)
        return tokens.gather(1, place.unsqueeze(1)).squeeze(1), top - total


class MarianBatchedNetwork:
    """Encoder and decoder with the embeddings they share."""

    def __init__(self, file: MarianFile, longest: int, unknown: int) -> None:
        """`longest` is the most tokens of a source or target, `unknown` the id that is never written."""
        weights = ModuleWeights(file)
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
        self.output = Output(self.integers, multiplier, bias)
        self.positions = sinusoids(longest, weights.dimensions)
        self.heads, self.layers, self.width = heads, len(decoder), weights.dimensions
        self.encoder, self.decoder = Encoder(weights, layers, decoder), Decoder(decoder)
        self.nbytes = weights.nbytes + 2 * self.integers.nbytes + self.positions.nbytes

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
