"""Attention of the new tokens of several sequences, each of which has its own key-value cache."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import carray

from shared.engines.kernels.compiling import fused, plain, regrouped
from shared.engines.kernels.numbers import address, exponential, f32, in_order, of_order
from shared.engines.kernels.products import LANES, TOGETHER, eight_rows

ALL = -1
"""In place of a mask's address: every token may look at every other."""


class Heads(NamedTuple):
    """The shape of attention, and what it adds to its scores."""

    layers: int
    queries: int
    kv: int
    """Heads of keys and values; each serves `queries // kv` query heads."""
    size: int
    scaled: bool = True
    """Whether scores are divided by the root of the size."""
    relative_bias: np.ndarray | None = None
    """T5's relative-position bias (Raffel et al. 2020), added to a score for each distance: float32 (queries,
    2 * reach - 1), where index reach - 1 is the token itself and higher indices are later tokens."""


class Sequences(NamedTuple):
    """The input of one step: the new tokens of several sequences, one after the other."""

    positions: np.ndarray
    """int64 (tokens,)."""
    caches: np.ndarray
    """int64 (sequences,), like all below: addresses of float32 (layers, 2, kv_heads, capacity, head_size)."""
    capacities: np.ndarray
    cached: np.ndarray
    """Tokens already in each cache."""
    new: np.ndarray
    """New tokens of each sequence."""
    masks: np.ndarray
    """Addresses of bool (new, cached + new): the tokens that each may look at; 0 for all before it and itself."""


@plain
def attend(heads: Heads, layer: int, qkv: np.ndarray, sequences: Sequences, out: np.ndarray) -> None:
    """Grouped-query attention of all new tokens, whose keys and values it appends to the caches."""
    at = 0
    for row in range(len(sequences.new)):
        new, cached = sequences.new[row], sequences.cached[row]
        cache = cache_at(heads, sequences.caches[row], sequences.capacities[row])[layer]
        some = qkv[at : at + new]
        append_keys_values(some, heads.queries, cache, cached)
        if new == 1 and sequences.masks[row] == 0:
            attend_one(some[0], cache, cached + 1, heads, heads.relative_bias, out[at])
        else:
            attend_many(some, cache, cached, heads, heads.relative_bias, sequences.masks[row], out[at : at + new])
        at += new


@plain
def cache_at(heads: Heads, place: int, capacity: int) -> np.ndarray:
    """The key-value cache at an address: float32 (layers, 2, kv_heads, capacity, head_size)."""
    return carray(address(place), (heads.layers, 2, heads.kv, capacity, heads.size), np.float32)


@plain
def attend_texts(heads: Heads, qkv: np.ndarray, lengths: np.ndarray, out: np.ndarray) -> None:
    """An encoder's attention, without a cache: every token of a text looks at all of that text.

    `qkv`: the tokens of all texts one after the other; `lengths`, int64 (texts,): tokens of each.
    """
    at = 0
    for length in lengths:
        keys_values = np.empty((2, heads.kv, length, heads.size), np.float32)
        some = qkv[at : at + length]
        append_keys_values(some, heads.queries, keys_values, 0)
        attend_many(some, keys_values, 0, heads, heads.relative_bias, ALL, out[at : at + length])
        at += length


@plain
def append_keys_values(qkv: np.ndarray, queries: int, cache: np.ndarray, cached: int) -> None:
    """Writes keys and values of new tokens into one layer's cache, which has `cached` tokens."""
    kv, size = cache.shape[1], cache.shape[3]
    for head in range(kv):
        for part in range(2):
            at = (queries + part * kv + head) * size
            for i in range(len(qkv)):
                copy(qkv[i, at : at + size], cache[part, head, cached + i])


@regrouped
def attend_one(
    qkv: np.ndarray, cache: np.ndarray, length: int, heads: Heads, bias: np.ndarray | None, out: np.ndarray
) -> None:
    """The usual case, one new token, which looks at all. `bias`: `heads.relative_bias`, or None for no bias.

    numba compiles a version of its own for None, without the bias.
    """
    kv_heads, size = cache.shape[1], cache.shape[3]
    scores, found = np.empty(length, np.float32), np.empty(size, np.float32)
    scale = f32(1) / np.sqrt(f32(size)) if heads.scaled else f32(1)
    fours = length // 4 * 4  # four at once, so that what they have in common is loaded once for them
    for head in range(heads.queries):
        query, kv = qkv[head * size : (head + 1) * size], head * kv_heads // heads.queries
        keys, values = cache[0, kv], cache[1, kv]
        for t in range(0, fours, 4):
            s0, s1, s2, s3 = f32(0), f32(0), f32(0), f32(0)
            for j in range(size):
                s0 += query[j] * keys[t, j]
                s1 += query[j] * keys[t + 1, j]
                s2 += query[j] * keys[t + 2, j]
                s3 += query[j] * keys[t + 3, j]
            scores[t], scores[t + 1], scores[t + 2], scores[t + 3] = s0 * scale, s1 * scale, s2 * scale, s3 * scale
        for t in range(fours, length):
            s0 = f32(0)
            for j in range(size):
                s0 += query[j] * keys[t, j]
            scores[t] = s0 * scale
        if bias is not None:
            add_relative_bias(scores, bias[head], length - 1)
        softmax(scores)
        for j in range(size):
            found[j] = f32(0)
        for t in range(0, fours, 4):
            s0, s1, s2, s3 = scores[t], scores[t + 1], scores[t + 2], scores[t + 3]
            for j in range(size):
                more = s0 * values[t, j] + s1 * values[t + 1, j] + s2 * values[t + 2, j] + s3 * values[t + 3, j]
                found[j] += more
        for t in range(fours, length):
            for j in range(size):
                found[j] += scores[t] * values[t, j]
        for j in range(size):
            out[head * size + j] = found[j]


@plain
def attend_many(
    qkv: np.ndarray, cache: np.ndarray, cached: int, heads: Heads, bias: np.ndarray | None, mask: int, out: np.ndarray
) -> None:
    """Several new tokens: keys and values become blocks as of a matrix, eight rows' products with them at a time.

    `bias` is as in `attend_one`; `mask` is an address as in `Sequences`, or `ALL`.
    """
    kv_heads, size = cache.shape[1], cache.shape[3]
    new, length, groups = len(qkv), cached + len(qkv), heads.queries // kv_heads
    blocks, wide = -(-length // LANES), -(-size // LANES)
    keys = np.zeros((blocks, size, LANES), np.float32)
    values = np.zeros((wide, blocks * LANES, LANES), np.float32)
    queries = np.zeros((-(-new // 8) * 8, size), np.float32)
    scores = np.zeros((8, blocks * LANES), np.float32)
    found = np.empty((8, wide * LANES), np.float32)
    one, zero = np.ones((1, LANES), np.float32), np.zeros((1, LANES), np.float32)
    scale = f32(1) / np.sqrt(f32(size)) if heads.scaled else f32(1)
    for kv in range(kv_heads):
        in_blocks(cache[:, kv, :length], keys, values)
        for head in range(kv * groups, (kv + 1) * groups):
            scaled(qkv[:, head * size : (head + 1) * size], scale, queries)
            for first in range(0, new, 8):
                some = min(8, new - first)
                # The eight look at no token after the last of them.
                last = length if mask else cached + first + some
                width = -(-last // LANES) * LANES  # whole blocks, so that a row's sums do not depend on the others'
                for block in range(width // LANES):
                    eight_rows(queries[first : first + 8], 0, keys[block], one, zero, scores, block * LANES)
                for i in range(some):
                    if bias is not None:
                        add_relative_bias(scores[i, :length], bias[head], cached + first + i)
                    exclude(scores[i, :width], first + i, cached, length, mask)
                    softmax(scores[i, :width])
                reached = -(-last // TOGETHER) * TOGETHER
                for block in range(wide):
                    eight_rows(scores, 0, values[block, :reached], one, zero, found, block * LANES)
                for i in range(some):
                    copy(found[i], out[first + i, head * size : (head + 1) * size])


# Slices below, because the compiler does not know that a product of indices is not negative.


@plain
def in_blocks(cache: np.ndarray, keys: np.ndarray, values: np.ndarray) -> None:
    """Of one head, (2, length, size): keys to (blocks, size, 64), 64 tokens' numbers side by side; values likewise."""
    for t in range(cache.shape[1]):
        key, block, lane = cache[0, t], keys[t // LANES], t % LANES
        for j in range(len(key)):
            block[j, lane] = key[j]
        for w in range(len(values)):
            part = cache[1, t, w * LANES : (w + 1) * LANES]
            copy(part, values[w, t, : len(part)])


@plain
def copy(numbers: np.ndarray, out: np.ndarray) -> None:
    """As many as `out` has room for."""
    for j in range(len(out)):
        out[j] = numbers[j]


@plain
def scaled(numbers: np.ndarray, scale: float, out: np.ndarray) -> None:
    for i in range(len(numbers)):
        some, into = numbers[i], out[i]
        for j in range(len(some)):
            into[j] = some[j] * scale


@plain
def add_relative_bias(scores: np.ndarray, bias: np.ndarray, position: int) -> None:
    """Adds T5's relative-position bias to the scores of the token at `position`."""
    some = bias[len(bias) // 2 - position :]
    for t in range(len(scores)):
        scores[t] += some[t]


@plain
def exclude(scores: np.ndarray, token: int, cached: int, length: int, mask: int) -> None:
    """Sets scores of tokens that one of the new tokens must not look at, and of padding, to minus infinity."""
    beyond = length if mask else cached + token + 1
    for t in range(len(scores) - beyond):
        scores[beyond + t] = -np.inf
    if mask and mask != ALL:
        allowed = carray(address(mask), (token + 1, length), np.bool_)[token]
        for t in range(length):
            if not allowed[t]:
                scores[t] = -np.inf


@regrouped
def softmax(scores: np.ndarray) -> None:
    """In place; at least one of them is not minus infinity."""
    greatest = in_order(scores[0])
    for t in range(len(scores)):
        greatest = max(greatest, in_order(scores[t]))
    most = of_order(greatest)
    total = f32(0)
    for t in range(len(scores)):
        scores[t] = exponential(scores[t] - most)
        total += scores[t]
    share = f32(1) / total
    for t in range(len(scores)):
        scores[t] *= share


@fused
def rotate(qkv: np.ndarray, heads: Heads, cosines: np.ndarray, sines: np.ndarray, positions: np.ndarray) -> None:
    """Rotary positions (Su et al. 2021) of queries and keys, in place."""
    size, half = heads.size, heads.size // 2
    for row in range(qkv.shape[0]):
        cosine, sine = cosines[positions[row]], sines[positions[row]]
        for head in range(heads.queries + heads.kv):
            front, back = qkv[row, head * size : head * size + half], qkv[row, head * size + half : (head + 1) * size]
            for i in range(half):
                a, b = front[i], back[i]
                front[i] = a * cosine[i] - b * sine[i]
                back[i] = b * cosine[i] + a * sine[i]
