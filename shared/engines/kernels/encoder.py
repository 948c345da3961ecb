"""All layers of an encoder: every token of a text looks at all of that text (Vaswani et al. 2017)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shared.engines.kernels.attention import Heads, attend_texts
from shared.engines.kernels.compiling import plain
from shared.engines.kernels.elementwise import Style, activate, incoming, outgoing
from shared.engines.kernels.products import LANES, Affine, affine, affine_of


class Encoder(NamedTuple):
    """All layers' weights, stacked."""

    qkv: Affine
    attention_output: Affine
    up: Affine
    down: Affine
    inner: int
    norms: np.ndarray
    """float32 (layers, 2, 2, width): of attention and of the feed-forward part; weights and biases."""
    heads: Heads
    style: Style


@plain
def forward_encoder(network: Encoder, x: np.ndarray, lengths: np.ndarray) -> None:
    """Turns embedded tokens into the last layer's states, in place: float32 (tokens, width).

    `lengths`: int64, tokens of each text; the texts stand one after the other.
    """
    heads, style = network.heads, network.style
    inputs = np.empty_like(x)
    qkv = np.empty((x.shape[0], network.qkv.matrix.quants.shape[1] * LANES), np.float32)
    attended = np.empty((x.shape[0], heads.queries * heads.size), np.float32)
    up = np.empty((x.shape[0], network.up.matrix.quants.shape[1] * LANES), np.float32)
    activated = np.empty((x.shape[0], network.inner), np.float32)
    found = np.empty((x.shape[0], network.down.matrix.quants.shape[1] * LANES), np.float32)
    for layer in range(heads.layers):
        norms = network.norms[layer]
        affine(incoming(x, norms[0], style, inputs), affine_of(network.qkv, layer), qkv)
        attend_texts(heads, qkv, lengths, attended)
        affine(attended, affine_of(network.attention_output, layer), found)
        outgoing(x, found, norms[0], style)
        affine(incoming(x, norms[1], style, inputs), affine_of(network.up, layer), up)
        activate(up, style, activated)
        affine(activated, affine_of(network.down, layer), found)
        outgoing(x, found, norms[1], style)
