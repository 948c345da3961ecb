"""All layers of a decoder that attends to its own output and to a source (Vaswani et al. 2017): a token a line."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shared.engines.kernels.attention import Heads, Sequences, attend
from shared.engines.kernels.compiling import plain
from shared.engines.kernels.elementwise import Style, activate, incoming, outgoing
from shared.engines.kernels.products import LANES, Affine, affine, affine_of
from shared.engines.kernels.sources import Sources, attend_sources


class CrossDecoder(NamedTuple):
    """All layers' weights, stacked."""

    qkv: Affine
    attention_output: Affine
    queries: Affine
    """Queries of the attention over the source."""
    keys_values: Affine
    """Keys and values of the source."""
    cross_attention_output: Affine
    up: Affine
    down: Affine
    inner: int
    norms: np.ndarray
    """float32 (layers, 3, 2, width): of self-attention, of attention over the source, and of the feed-forward part."""
    heads: Heads
    style: Style


@plain
def forward_decoder(network: CrossDecoder, x: np.ndarray, sequences: Sequences, sources: Sources) -> None:
    """Turns the newest token of each line, embedded, into the last layer's states, in place: float32 (lines, width)."""
    heads, style, lines = network.heads, network.style, np.arange(x.shape[0])
    inputs = np.empty_like(x)
    qkv = np.empty((x.shape[0], network.qkv.matrix.quants.shape[1] * LANES), np.float32)
    queries = np.empty((x.shape[0], network.queries.matrix.quants.shape[1] * LANES), np.float32)
    attended = np.empty((x.shape[0], heads.queries * heads.size), np.float32)
    up = np.empty((x.shape[0], network.up.matrix.quants.shape[1] * LANES), np.float32)
    activated = np.empty((x.shape[0], network.inner), np.float32)
    found = np.empty((x.shape[0], network.down.matrix.quants.shape[1] * LANES), np.float32)
    for layer in range(heads.layers):
        norms = network.norms[layer]
        affine(incoming(x, norms[0], style, inputs), affine_of(network.qkv, layer), qkv)
        attend(heads, layer, qkv, sequences, attended)
        affine(attended, affine_of(network.attention_output, layer), found)
        outgoing(x, found, norms[0], style)
        affine(incoming(x, norms[1], style, inputs), affine_of(network.queries, layer), queries)
        attend_sources(heads, layer, queries, lines, sources, attended)
        affine(attended, affine_of(network.cross_attention_output, layer), found)
        outgoing(x, found, norms[1], style)
        affine(incoming(x, norms[2], style, inputs), affine_of(network.up, layer), up)
        activate(up, style, activated)
        affine(activated, affine_of(network.down, layer), found)
        outgoing(x, found, norms[2], style)
