"""Attention of a decoder over the sources that an encoder has read: their keys and values, found once a source."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shared.engines.kernels.attention import Heads, append_keys_values, attend_one, cache_at
from shared.engines.kernels.compiling import plain
from shared.engines.kernels.products import LANES, Affine, affine, affine_of


class Sources(NamedTuple):
    """The source of each line of one step; several lines may have the same."""

    caches: np.ndarray
    """int64 (lines,): addresses of the source's keys and values, float32 (layers, 2, heads, tokens, size)."""
    lengths: np.ndarray
    """int64 (lines,): tokens of each source."""


@plain
def cache_sources(heads: Heads, keys_values: Affine, x: np.ndarray, sources: Sources) -> None:
    """Writes the keys and values of encoded sources, float32 (tokens, width), one after the other, of all layers."""
    found = np.empty((x.shape[0], keys_values.matrix.quants.shape[1] * LANES), np.float32)
    for layer in range(heads.layers):
        affine(x, affine_of(keys_values, layer), found)
        cache_sources_of_layer(heads, layer, found, sources)


@plain
def cache_sources_of_layer(heads: Heads, layer: int, found: np.ndarray, sources: Sources) -> None:
    """Those of one layer, float32 (tokens, 2 * heads * size or more)."""
    at = 0
    for line in range(len(sources.lengths)):
        length = sources.lengths[line]
        append_keys_values(found[at : at + length], 0, cache_at(heads, sources.caches[line], length)[layer], 0)
        at += length


@plain
def attend_sources(
    heads: Heads, layer: int, queries: np.ndarray, which: np.ndarray, sources: Sources, out: np.ndarray
) -> None:
    """Attention of each row, float32 (rows, heads * size or more), over the source of the line that `which` names."""
    for row in range(len(which)):
        length = sources.lengths[which[row]]
        cache = cache_at(heads, sources.caches[which[row]], length)[layer]
        attend_one(queries[row], cache, length, heads, None, out[row])
