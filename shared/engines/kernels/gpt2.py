"""All layers of a GPT-2."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shared.engines.kernels.attention import Heads, Sequences, attend
from shared.engines.kernels.compiling import plain
from shared.engines.kernels.elementwise import add, gelu_tanh, layer_norm
from shared.engines.kernels.products import LANES, Affine, affine, affine_of


class Gpt2(NamedTuple):
    """All layers' weights, stacked."""

    qkv: Affine
    attention_output: Affine
    up: Affine
    down: Affine
    inner: int
    norms: np.ndarray
    """float32 (layers, 2, 2, width): before attention and before the feed-forward part; weights and biases."""
    heads: Heads
    epsilon: float


@plain
def forward_gpt2(network: Gpt2, x: np.ndarray, sequences: Sequences) -> None:
    """Turns tokens embedded with their positions into the last layer's states, in place: float32 (tokens, width)."""
    heads = network.heads
    qkv = np.empty((x.shape[0], network.qkv.matrix.quants.shape[1] * LANES), np.float32)
    attended = np.empty((x.shape[0], heads.queries * heads.size), np.float32)
    up = np.empty((x.shape[0], network.up.matrix.quants.shape[1] * LANES), np.float32)
    activated = np.empty((x.shape[0], network.inner), np.float32)
    inputs = np.empty_like(x)
    found = np.empty((x.shape[0], network.down.matrix.quants.shape[1] * LANES), np.float32)
    for layer in range(heads.layers):
        layer_norm(x, network.norms[layer, 0], network.epsilon, inputs)
        affine(inputs, affine_of(network.qkv, layer), qkv)
        attend(heads, layer, qkv, sequences, attended)
        affine(attended, affine_of(network.attention_output, layer), found)
        add(x, found)
        layer_norm(x, network.norms[layer, 1], network.epsilon, inputs)
        affine(inputs, affine_of(network.up, layer), up)
        gelu_tanh(up, activated)
        affine(activated, affine_of(network.down, layer), found)
        add(x, found)
