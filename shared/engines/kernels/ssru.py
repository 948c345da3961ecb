"""A Marian student's decoder: all its layers, and some tokens of many sentences at once, greedily.

Its self-attention is a recurrent unit (Kim et al. 2019), so that a token costs the same at every place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shared.engines.kernels.attention import Heads
from shared.engines.kernels.compiling import fused, plain
from shared.engines.kernels.elementwise import add, layer_norm, relu
from shared.engines.kernels.likeliest import likeliest
from shared.engines.kernels.numbers import exponential, f32
from shared.engines.kernels.products import LANES, Affine, affine, affine_of, embed
from shared.engines.kernels.sources import Sources, attend_sources


class Ssru(NamedTuple):
    """All layers' weights, stacked, and the embeddings."""

    candidate_forget: Affine
    queries: Affine
    keys_values: Affine
    """Keys and values of the source."""
    attention_output: Affine
    up: Affine
    down: Affine
    inner: int
    norms: np.ndarray
    """float32 (layers, 3, 2, width): after the unit, attention and the feed-forward part; weights and biases."""
    heads: Heads
    epsilon: float
    vocabulary: Affine
    """Embeddings of source and target, and the output matrix: (tokens, width)."""
    scale: float
    """By which an embedding is multiplied."""
    positions: np.ndarray
    """float32 (places, width)."""


class Lines(NamedTuple):
    """The outputs that one step continues, a line each."""

    newest: np.ndarray
    """int64 (lines,): the last token of each, -1 where there is none yet."""
    places: np.ndarray
    """int64 (lines,): how many tokens each has."""
    cells: np.ndarray
    """float32 (layers, lines, width): states of the recurrent units."""
    sources: Sources


@plain
def write(network: Ssru, lines: Lines, limits: np.ndarray, end: int, tokens: np.ndarray, sure: np.ndarray) -> None:
    """The likeliest next tokens of each line, until it ends: int64 (lines, most), -1 behind the end.

    `sure`, float32, are their log-probabilities; a line ends with the token `end`, or with `limits` (lines,) tokens.
    """
    live, tokens[:] = np.arange(len(tokens)), -1
    newest, places = lines.newest.copy(), lines.places.copy()
    logits = np.empty((len(tokens), network.vocabulary.matrix.quants.shape[0] * LANES), np.float32)
    for word in range(tokens.shape[1]):
        x = np.empty((len(live), network.positions.shape[1]), np.float32)
        embed_lines(network, newest[live], places[live], x)
        forward(network, x, live, lines)
        affine(x, network.vocabulary, logits)
        for row in range(len(live)):
            line = live[row]
            token, rest = likeliest(logits[row, : len(network.vocabulary.bias)])
            tokens[line, word], sure[line, word] = token, -rest
            newest[line] = token
            places[line] += 1
        live = live[(newest[live] != end) & (places[live] < limits[live])]
        if len(live) == 0:
            break


@plain
def embed_lines(network: Ssru, newest: np.ndarray, places: np.ndarray, x: np.ndarray) -> None:
    embed(np.maximum(newest, 0), network.vocabulary.matrix, x)
    for row in range(len(x)):
        scale, position = f32(network.scale if newest[row] >= 0 else 0), network.positions[places[row]]
        for i in range(x.shape[1]):
            x[row, i] = x[row, i] * scale + position[i]


@plain
def forward(network: Ssru, x: np.ndarray, which: np.ndarray, lines: Lines) -> None:
    """One token of `which` lines: embedded tokens to states, float32 (rows, width), in place. Changes the cells."""
    heads = network.heads
    both = np.empty((x.shape[0], network.candidate_forget.matrix.quants.shape[1] * LANES), np.float32)
    queries = np.empty((x.shape[0], network.queries.matrix.quants.shape[1] * LANES), np.float32)
    attended = np.empty((x.shape[0], heads.queries * heads.size), np.float32)
    up = np.empty((x.shape[0], network.up.matrix.quants.shape[1] * LANES), np.float32)
    activated = np.empty((x.shape[0], network.inner), np.float32)
    found = np.empty((x.shape[0], network.down.matrix.quants.shape[1] * LANES), np.float32)
    for layer in range(heads.layers):
        norms = network.norms[layer]
        affine(x, affine_of(network.candidate_forget, layer), both)
        for row in range(len(x)):
            recur(both[row], lines.cells[layer, which[row]], x[row])
        layer_norm(x, norms[0], network.epsilon, x)
        affine(x, affine_of(network.queries, layer), queries)
        attend_sources(heads, layer, queries, which, lines.sources, attended)
        affine(attended, affine_of(network.attention_output, layer), found)
        add(x, found)
        layer_norm(x, norms[1], network.epsilon, x)
        affine(x, affine_of(network.up, layer), up)
        relu(up, activated)
        affine(activated, affine_of(network.down, layer), found)
        add(x, found)
        layer_norm(x, norms[2], network.epsilon, x)


@fused
def recur(both: np.ndarray, cell: np.ndarray, x: np.ndarray) -> None:
    """The unit: what it holds becomes a mean of that and the candidate; what is above 0 is added to the token."""
    forget = both[len(x) :]
    for i in range(len(x)):
        share = f32(1) / (f32(1) + exponential(-forget[i]))
        cell[i] = both[i] + share * (cell[i] - both[i])
        x[i] += max(cell[i], f32(0))
