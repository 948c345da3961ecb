"""The forward passes of Marian's tiny models for many sentences at once, all matrices in the int8 of the files.

They compute the same as the reference (`network`). But no sentence is padded to another's length, and what a sentence
gets does not depend on the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from shared.engines.firefox.file import EMBEDDINGS, MarianFile
from shared.engines.firefox.network import LAYER_NORM_EPSILON, Norm, Weights
from shared.engines.kernels import ssru
from shared.engines.kernels.attention import Heads
from shared.engines.kernels.elementwise import RELU, Style
from shared.engines.kernels.encoder import Encoder, forward_encoder
from shared.engines.kernels.products import LANES, Affine, affine, affine_of
from shared.engines.kernels.sources import Sources, cache_sources
from shared.engines.kernels.ssru import Lines, Ssru
from shared.engines.packed.matrices import matrix_in
from shared.engines.packed.positions import sinusoids
from shared.engines.packed.weights import pack_blocks
from shared.errors import WeightsCorrupt


@dataclass(eq=False)
class Line:
    """A target in progress."""

    source: np.ndarray
    """Keys and values of the source, float32 (decoder layers, 2, heads, source tokens, width / heads)."""
    cells: np.ndarray
    """float32 (decoder layers, width)."""
    tokens: list[int] = field(default_factory=list)


class BatchedNetwork:
    """Encoder and decoder with the embeddings they share."""

    def __init__(self, file: MarianFile, longest: int, unknown: int) -> None:
        """`longest` is the most tokens of a source or target, `unknown` the id that is never written."""
        weights = KernelWeights(file)
        width, heads = weights.dimensions, weights.option("transformer-heads")
        encoder = [f"encoder_l{n}" for n in range(1, weights.option("enc-depth") + 1)]
        decoder = [f"decoder_l{n}" for n in range(1, weights.option("dec-depth") + 1)]
        feed = [weights.feed_forward(f"{at}_ffn") for at in encoder]
        self.encoder = Encoder(
            qkv=weights.affine([weights.linear(f"{at}_self_W", f"{at}_self_b", "qkv") for at in encoder]),
            attention_output=weights.affine([weights.linear(f"{at}_self_W", f"{at}_self_b", "o") for at in encoder]),
            up=weights.affine([parts.inner for parts in feed]),
            down=weights.affine([parts.outer for parts in feed]),
            inner=weights.option("transformer-dim-ffn"),
            norms=_norms([weights.norm(f"{at}_self_Wo"), f.norm] for at, f in zip(encoder, feed, strict=True)),
            heads=Heads(len(encoder), heads, heads, width // heads),
            style=Style(before=False, rms=False, activation=RELU, gated=False, epsilon=LAYER_NORM_EPSILON),
        )
        feed = [weights.feed_forward(f"{at}_ffn") for at in decoder]
        self.decoder = Ssru(
            candidate_forget=weights.affine([weights.ssru(f"{at}_rnn") for at in decoder]),
            queries=weights.affine([weights.linear(f"{at}_context_W", f"{at}_context_b", "q") for at in decoder]),
            keys_values=weights.affine([weights.linear(f"{at}_context_W", f"{at}_context_b", "kv") for at in decoder]),
            attention_output=weights.affine(
                [weights.linear(f"{at}_context_W", f"{at}_context_b", "o") for at in decoder]
            ),
            up=weights.affine([parts.inner for parts in feed]),
            down=weights.affine([parts.outer for parts in feed]),
            inner=weights.option("transformer-dim-ffn"),
            norms=_norms(
                [weights.norm(f"{at}_rnn_ffn"), weights.norm(f"{at}_context_Wo"), f.norm]
                for at, f in zip(decoder, feed, strict=True)
            ),
            heads=Heads(len(decoder), heads, heads, width // heads),
            epsilon=LAYER_NORM_EPSILON,
            vocabulary=weights.vocabulary(unknown),
            scale=math.sqrt(width),
            positions=weights.keep(sinusoids(longest, width)).numpy(),
        )
        self.layers, self.width, self.nbytes = len(decoder), width, weights.nbytes

    def read(self, sources: Sequence[Sequence[int]]) -> list[Line]:
        """A line for each source (token ids, end token included).

        Raises `IndexError` for tokens or positions that the network does not have: compiled code would not notice.
        """
        if not sources:
            return []
        lengths, ids = np.array([len(source) for source in sources]), np.concatenate(sources)
        if ids.min() < 0 or ids.max() >= len(self.decoder.vocabulary.bias):
            raise IndexError(f"token {ids.max()} of {len(self.decoder.vocabulary.bias)}")
        if lengths.max() > len(self.decoder.positions):
            raise IndexError(f"{lengths.max()} tokens, and there are {len(self.decoder.positions)} positions")
        x = np.empty((lengths.sum(), self.width), np.float32)
        places = np.concatenate([np.arange(length) for length in lengths])
        ssru.embed_lines(self.decoder, ids, places, x)
        forward_encoder(self.encoder, x, lengths)
        heads = self.decoder.heads
        lines = [
            Line(
                np.empty((self.layers, 2, heads.queries, length, heads.size), np.float32),
                np.zeros((self.layers, self.width), np.float32),
            )
            for length in lengths
        ]
        cache_sources(heads, self.decoder.keys_values, x, self._lines(lines).sources)
        return lines

    def write(self, lines: Sequence[Line], limits: Sequence[int], end: int, most: int) -> np.ndarray:
        """Up to `most` further tokens of each line, the likeliest; their log-probabilities, float32 (lines, most).

        Raises `IndexError` as `read` does.
        """
        if max(limits) > len(self.decoder.positions):
            raise IndexError(f"{max(limits)} tokens, and there are {len(self.decoder.positions)} positions")
        some = self._lines(lines)
        tokens, sure = np.empty((len(lines), most), np.int64), np.zeros((len(lines), most), np.float32)
        ssru.write(self.decoder, some, np.array(limits), end, tokens, sure)
        for number, line in enumerate(lines):
            line.cells = some.cells[:, number].copy()
            line.tokens += tokens[number][tokens[number] >= 0].tolist()
        return sure

    def logits(self, lines: Sequence[Line]) -> np.ndarray:
        """Of each line's next token, float32 (lines, vocabulary). Changes the lines' cells."""
        some = self._lines(lines)
        x = np.empty((len(lines), self.width), np.float32)
        ssru.embed_lines(self.decoder, some.newest, some.places, x)
        ssru.forward(self.decoder, x, np.arange(len(lines)), some)
        for number, line in enumerate(lines):
            line.cells = some.cells[:, number].copy()
        vocabulary = self.decoder.vocabulary
        out = np.empty((len(lines), len(vocabulary.matrix.quants) * LANES), np.float32)
        affine(x, vocabulary, out)
        return out[:, : len(vocabulary.bias)]

    def _lines(self, lines: Sequence[Line]) -> Lines:
        """The lines as the kernels read them. It has addresses only: `lines` must outlive it."""
        return Lines(
            newest=np.array([line.tokens[-1] if line.tokens else -1 for line in lines]),
            places=np.array([len(line.tokens) for line in lines]),
            cells=np.stack([line.cells for line in lines], 1),
            sources=Sources(
                caches=np.array([line.source.ctypes.data for line in lines]),
                lengths=np.array([line.source.shape[3] for line in lines]),
            ),
        )


@dataclass(frozen=True, slots=True)
class QuantizedLinear:
    """A matrix of the file as it is stored: quants (out, in), scales and mins (out, groups), and bias (out,)."""

    grid: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    bias: torch.Tensor


class KernelWeights(Weights):
    """Takes the tensors in the layout of the compiled kernels."""

    def affine(self, layers: Sequence[Any]) -> Affine:
        """One matrix for all layers, each of them a `QuantizedLinear`."""
        found = pack_blocks("one", [layer.grid for layer in layers])
        found["one.bias"] = torch.stack([layer.bias for layer in layers])
        for tensor in found.values():
            self.keep(tensor)
        return matrix_in(found, "one")

    def vocabulary(self, unknown: int) -> Affine:
        """Tied embeddings with the output bias, in which `unknown` is made impossible."""
        matrix = self._tensor(EMBEDDINGS, self.option("dim-vocabs"), self.dimensions).T
        bias = self._tensor("decoder_ff_logit_out_b", 1, matrix.shape[1]).copy()
        bias[0, unknown] = -math.inf
        return affine_of(self.affine([self._linear([EMBEDDINGS], matrix, bias)]), 0)

    def _linear(self, names: Sequence[str], matrix: np.ndarray, bias: np.ndarray) -> Any:
        missing = [name for name in names if name not in self.file.multipliers]
        if missing:
            raise WeightsCorrupt(f"the Marian model's {missing[0]} is not int8")
        each = matrix.shape[1] // len(names)
        multipliers = np.repeat([np.float32(self.file.multipliers[name]) for name in names], each)
        quants = torch.from_numpy(np.rint(matrix * multipliers).astype(np.int8)).T
        groups = len(matrix) // math.gcd(len(matrix), SUM_GROUP)
        scales = torch.from_numpy(1 / multipliers)[:, None].repeat(1, groups)
        return QuantizedLinear((quants, scales, torch.zeros_like(scales)), torch.from_numpy(bias[0]))


SUM_GROUP = 256
"""Inputs whose products are summed as integers; the sum of 512 is the largest that 32 bits hold."""


def _norms(layers: Any) -> np.ndarray:
    """The norms of all layers: (layers, norms of a layer, 2, width)."""
    return torch.stack([torch.stack([_norm(norm) for norm in norms]) for norms in layers]).numpy()


def _norm(norm: Norm) -> torch.Tensor:
    return torch.stack([norm.scale, norm.bias])
