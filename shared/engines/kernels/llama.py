"""All layers of a Llama."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shared.engines.kernels.attention import Heads, Sequences, attend, rotate
from shared.engines.kernels.compiling import plain
from shared.engines.kernels.elementwise import add, rms_norm, swiglu
from shared.engines.kernels.products import LANES, Matrix, layer_of, product


class Llama(NamedTuple):
    """All layers' weights, stacked."""

    qkv: Matrix
    attention_output: Matrix
    gate_up: Matrix
    down: Matrix
    inner: int
    norms: np.ndarray
    """float32 (layers, 2, width): before attention and before the feed-forward part."""
    cosines: np.ndarray
    """float32 (positions, head_size / 2), as `sines`."""
    sines: np.ndarray
    heads: Heads
    epsilon: float


@plain
def forward_llama(network: Llama, x: np.ndarray, sequences: Sequences) -> None:
    """Turns embedded tokens into the last layer's states, in place: float32 (tokens, width)."""
    heads = network.heads
    qkv = np.empty((x.shape[0], network.qkv.quants.shape[1] * LANES), np.float32)
    attended = np.empty((x.shape[0], heads.queries * heads.size), np.float32)
    gate_up = np.empty((x.shape[0], network.gate_up.quants.shape[1] * LANES), np.float32)
    activated = np.empty((x.shape[0], network.inner), np.float32)
    inputs = np.empty_like(x)
    found = np.empty((x.shape[0], network.down.quants.shape[1] * LANES), np.float32)
    for layer in range(heads.layers):
        rms_norm(x, network.norms[layer, 0], network.epsilon, inputs)
        product(inputs, layer_of(network.qkv, layer), qkv)
        rotate(qkv, heads, network.cosines, network.sines, sequences.positions)
        attend(heads, layer, qkv, sequences, attended)
        product(attended, layer_of(network.attention_output, layer), found)
        add(x, found)
        rms_norm(x, network.norms[layer, 1], network.epsilon, inputs)
        product(inputs, layer_of(network.gate_up, layer), gate_up)
        swiglu(gate_up, activated)
        product(activated, layer_of(network.down, layer), found)
        add(x, found)
