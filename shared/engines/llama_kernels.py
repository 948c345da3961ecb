"""The arithmetic of Llama-like decoders, compiled for the processor it runs on: fewer bytes read, no interpreter.

A token of a small model is bound by how fast its weights come out of memory, so they are kept as small as they were
published. Where those are integers, activations become integers of 16 bits, in the same groups, and the processor sums
their products exactly, in one instruction where it has VNNI. Everything between two tokens is one compiled function,
which holds no lock of the interpreter.

Sums are taken in the same order whatever else is computed in the same step, so what a sequence gets does not depend on
its company, to the last bit.

All of it is in one file, because the compiler's cache on disk looks only at the file of the function it is asked for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, extending, njit, types
from numba.np.arrayobj import make_array

LANES = 64
"""Outputs computed side by side: four vectors of AVX-512, eight of AVX2."""
TOGETHER = 4
"""Inputs whose products are added to a sum before it is put back."""

f32: Any = np.float32

intrinsic: Any = extending.intrinsic
plain: Any = njit(nogil=True, error_model="numpy", cache=True)
fused: Any = njit(nogil=True, error_model="numpy", cache=True, fastmath={"contract"})
"""Multiplication and addition in one instruction, and nothing else that changes a result."""
regrouped: Any = njit(nogil=True, error_model="numpy", cache=True, fastmath={"contract", "reassoc"})
"""Sums within one row in the order that the processor likes; it is the same for every row."""


class Matrix(NamedTuple):
    """Weights (out, in) of one layer or, with a dimension more in front, of all layers; blocks of 64 outputs.

    weight = step * integer + offset, in groups of inputs. `integers`: int8 (blocks, in / 2, 64, 2), or bfloat16 as
    uint16, or float32, (blocks, in, 64). `steps` and `offsets`: float32 (blocks, groups, 64).
    """

    integers: np.ndarray
    steps: np.ndarray
    offsets: np.ndarray


class Network(NamedTuple):
    """All layers' weights, stacked."""

    qkv: Matrix
    attended: Matrix
    gate_up: Matrix
    down: Matrix
    inner: int
    norms: np.ndarray
    """float32 (layers, 2, width): before attention, and before what follows it."""
    cosines: np.ndarray
    """float32 (positions, head_size / 2), as `sines`."""
    sines: np.ndarray
    heads: int
    kv_heads: int
    head_size: int
    epsilon: float


class Sequences(NamedTuple):
    """What is computed in one step: the new tokens of several sequences, one after the other."""

    positions: np.ndarray
    """int64 (tokens,)."""
    memories: np.ndarray
    """int64 (sequences,): addresses of float32 (layers, 2, kv_heads, room, head_size)."""
    rooms: np.ndarray
    read: np.ndarray
    """Tokens that a memory holds already."""
    new: np.ndarray
    """How many of the tokens are of this sequence."""
    seen: np.ndarray
    """Addresses of bool (new, read + new): what a token may look at; 0 for all before it and itself."""


# -- the whole pass ---------------------------------------------------------------------------------


@plain
def forward(network: Network, x: np.ndarray, sequences: Sequences) -> None:
    """Turns embedded tokens into the last layer's states, in place: float32 (tokens, width)."""
    qkv = np.empty((x.shape[0], network.qkv.integers.shape[1] * LANES), np.float32)
    attended = np.empty((x.shape[0], network.heads * network.head_size), np.float32)
    gate_up = np.empty((x.shape[0], network.gate_up.integers.shape[1] * LANES), np.float32)
    activated = np.empty((x.shape[0], network.inner), np.float32)
    inputs = np.empty_like(x)
    found = np.empty((x.shape[0], network.down.integers.shape[1] * LANES), np.float32)
    for layer in range(network.norms.shape[0]):
        normed(x, network.norms[layer, 0], network.epsilon, inputs)
        product(inputs, layer_of(network.qkv, layer), qkv)
        attend(network, layer, qkv, sequences, attended)
        product(attended, layer_of(network.attended, layer), found)
        add(x, found)
        normed(x, network.norms[layer, 1], network.epsilon, inputs)
        product(inputs, layer_of(network.gate_up, layer), gate_up)
        activate(gate_up, activated)
        product(activated, layer_of(network.down, layer), found)
        add(x, found)


@plain
def layer_of(matrix: Matrix, layer: int) -> Matrix:
    return Matrix(matrix.integers[layer], matrix.steps[layer], matrix.offsets[layer])


@regrouped
def normed(x: np.ndarray, weight: np.ndarray, epsilon: float, out: np.ndarray) -> None:
    """RMS norm (Zhang and Sennrich 2019): float32 (rows, width)."""
    for row in range(x.shape[0]):
        total = f32(0)
        for i in range(x.shape[1]):
            total += x[row, i] * x[row, i]
        scale = f32(1) / np.sqrt(total / f32(x.shape[1]) + f32(epsilon))
        for i in range(x.shape[1]):
            out[row, i] = x[row, i] * scale * weight[i]


@plain
def add(x: np.ndarray, more: np.ndarray) -> None:
    """`more` may be wider, as what comes out of a product is."""
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[row, i] += more[row, i]


@fused
def activate(gate_up: np.ndarray, out: np.ndarray) -> None:
    """SwiGLU (Shazeer 2020): float32 (rows, 2 * inner or a little more) to (rows, inner)."""
    inner = out.shape[1]
    for row in range(out.shape[0]):
        for i in range(inner):
            gate = gate_up[row, i]
            out[row, i] = gate_up[row, inner + i] * (gate / (f32(1) + exponential(-gate)))


# -- attention -------------------------------------------------------------------------------------


@plain
def attend(network: Network, layer: int, qkv: np.ndarray, sequences: Sequences, out: np.ndarray) -> None:
    """Grouped-query attention of all new tokens, whose keys and values it writes into the memories."""
    heads, kv_heads, size = network.heads, network.kv_heads, network.head_size
    rotate(qkv, heads + kv_heads, size, network.cosines, network.sines, sequences.positions)
    at = 0
    for row in range(len(sequences.new)):
        new, read = sequences.new[row], sequences.read[row]
        shape = (network.norms.shape[0], 2, kv_heads, sequences.rooms[row], size)
        memory = carray(address(sequences.memories[row]), shape, np.float32)[layer]
        some = qkv[at : at + new]
        for head in range(kv_heads):
            for i in range(new):
                for j in range(size):
                    memory[0, head, read + i, j] = some[i, (heads + head) * size + j]
                    memory[1, head, read + i, j] = some[i, (heads + kv_heads + head) * size + j]
        if new == 1 and sequences.seen[row] == 0:
            attend_one(some[0], memory, read + 1, heads, out[at])
        else:
            attend_many(some, memory, read, heads, sequences.seen[row], out[at : at + new])
        at += new


@fused
def rotate(
    qkv: np.ndarray, heads: int, size: int, cosines: np.ndarray, sines: np.ndarray, positions: np.ndarray
) -> None:
    """Rotary positions (Su et al. 2021) of the first `heads` heads, in place."""
    half = size // 2
    for row in range(qkv.shape[0]):
        cosine, sine = cosines[positions[row]], sines[positions[row]]
        for head in range(heads):
            for i in range(half):
                a, b = qkv[row, head * size + i], qkv[row, head * size + half + i]
                qkv[row, head * size + i] = a * cosine[i] - b * sine[i]
                qkv[row, head * size + half + i] = b * cosine[i] + a * sine[i]


@regrouped
def attend_one(qkv: np.ndarray, memory: np.ndarray, length: int, heads: int, out: np.ndarray) -> None:
    """The usual case, one new token, which looks at all."""
    kv_heads, size = memory.shape[1], memory.shape[3]
    scores, found = np.empty(length, np.float32), np.empty(size, np.float32)
    scale = f32(1) / np.sqrt(f32(size))
    fours = length // 4 * 4  # four at once, so that what they have in common is loaded once for them
    for head in range(heads):
        query, kv = qkv[head * size : (head + 1) * size], head * kv_heads // heads
        keys, values = memory[0, kv], memory[1, kv]
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
def attend_many(qkv: np.ndarray, memory: np.ndarray, read: int, heads: int, seen: int, out: np.ndarray) -> None:
    """Several new tokens: keys and values become blocks as of a matrix, eight rows' products with them at a time."""
    kv_heads, size = memory.shape[1], memory.shape[3]
    new, length, groups = len(qkv), read + len(qkv), heads // kv_heads
    blocks, wide = -(-length // LANES), -(-size // LANES)
    keys = np.zeros((blocks, size, LANES), np.float32)
    values = np.zeros((wide, blocks * LANES, LANES), np.float32)
    queries = np.zeros((-(-new // 8) * 8, size), np.float32)
    scores = np.zeros((8, blocks * LANES), np.float32)
    found = np.empty((8, wide * LANES), np.float32)
    one, zero = np.ones((1, LANES), np.float32), np.zeros((1, LANES), np.float32)
    scale = f32(1) / np.sqrt(f32(size))
    mask = carray(address(seen), (new, length), np.bool_)
    for kv in range(kv_heads):
        for t in range(length):
            for j in range(size):
                keys[t // LANES, j, t % LANES] = memory[0, kv, t, j]
                values[j // LANES, t, j % LANES] = memory[1, kv, t, j]
        for head in range(kv * groups, (kv + 1) * groups):
            for i in range(new):
                for j in range(size):
                    queries[i, j] = qkv[i, head * size + j] * scale
            for first in range(0, new, 8):
                some = min(8, new - first)
                # What lies behind the last of the eight is not looked at.
                last = length if seen else read + first + some
                width = -(-last // LANES) * LANES
                for block in range(width // LANES):
                    eight_rows(queries[first : first + 8], 0, keys[block], one, zero, scores, block * LANES)
                for i in range(some):
                    for t in range(width):
                        allowed = t < length and (mask[first + i, t] if seen else t <= read + first + i)
                        if not allowed:
                            scores[i, t] = -np.inf
                    softmax(scores[i, :width])
                for block in range(wide):
                    eight_rows(scores, 0, values[block, :width], one, zero, found, block * LANES)
                for i in range(some):
                    for j in range(size):
                        out[first + i, head * size + j] = found[i, j]


@regrouped
def softmax(scores: np.ndarray) -> None:
    """In place; at least one of them is not minus infinity."""
    most = scores[0]
    for t in range(len(scores)):
        most = max(most, scores[t])
    total = f32(0)
    for t in range(len(scores)):
        scores[t] = exponential(scores[t] - most)
        total += scores[t]
    share = f32(1) / total
    for t in range(len(scores)):
        scores[t] *= share


# -- products --------------------------------------------------------------------------------------


@plain
def product(x: np.ndarray, matrix: Matrix, out: np.ndarray) -> None:
    """Rows times a matrix: float32 (rows, in) to (rows, out)."""
    _product(x, matrix.integers, matrix.steps, matrix.offsets, out)


@plain
def _product(x: np.ndarray, weights: np.ndarray, steps: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    if weights.ndim == 4:
        integer_product(x, weights, steps, offsets, out)
    else:
        float_product(x, weights, steps, offsets, out)


# Of integers: exact, but for the rounding of the activations to 16 bits (2e-5 of the largest of a group).


@plain
def integer_product(
    x: np.ndarray, weights: np.ndarray, steps: np.ndarray, offsets: np.ndarray, out: np.ndarray
) -> None:
    rows, inputs = x.shape
    integers = np.empty((rows, inputs), np.int16)
    sizes = np.empty((rows, steps.shape[1]), np.float32)
    sums = np.empty((rows, steps.shape[1]), np.float32)
    in_steps(x, integers, sizes, sums)
    for block in range(len(weights)):
        row, at = 0, block * LANES
        while rows - row >= 6:  # as many as the registers of AVX-512 hold the sums of
            six_integer_rows(integers, sizes, sums, row, weights[block], steps[block], offsets[block], out, at)
            row += 6
        if rows - row >= 4:
            four_integer_rows(integers, sizes, sums, row, weights[block], steps[block], offsets[block], out, at)
            row += 4
        if rows - row >= 2:
            two_integer_rows(integers, sizes, sums, row, weights[block], steps[block], offsets[block], out, at)
            row += 2
        if rows - row:
            one_integer_row(integers, sizes, sums, row, weights[block], steps[block], offsets[block], out, at)


@fused
def in_steps(x: np.ndarray, integers: np.ndarray, sizes: np.ndarray, sums: np.ndarray) -> None:
    """Activations as integers times a size of their group, whose largest is 32767, and the sum of each group."""
    group = x.shape[1] // sizes.shape[1]
    for row in range(x.shape[0]):
        for g in range(sizes.shape[1]):
            most = f32(1e-30)
            for i in range(g * group, (g + 1) * group):
                most = max(most, abs(x[row, i]))
            scale, total = f32(32767) / most, np.int32(0)
            for i in range(g * group, (g + 1) * group):
                integer = np.int32(x[row, i] * scale + f32(32768.5)) - np.int32(32768)  # the nearest
                integers[row, i] = integer
                total += integer
            sizes[row, g] = most / f32(32767)
            sums[row, g] = sizes[row, g] * f32(total)


def some_integer_rows(rows: int) -> Any:
    """The product of so many rows, from `row` on, with one block of weights, into `out` from column `at` on."""
    dots = dots_of(rows)

    @fused
    def kernel(
        x: np.ndarray,
        sizes: np.ndarray,
        sums: np.ndarray,
        row: int,
        weights: np.ndarray,
        steps: np.ndarray,
        offsets: np.ndarray,
        out: np.ndarray,
        at: int,
    ) -> None:
        inputs, groups = x.shape[1], len(steps)
        size = inputs // groups
        found, totals = np.empty((rows, LANES), np.int32), np.zeros((rows, LANES), np.float32)
        for group in range(groups):
            start = group * size
            dots(place(x, row * inputs + start), inputs, place(weights, start * LANES), size // 2, place(found, 0))
            for r in range(rows):
                scale, total = sizes[row + r, group], sums[row + r, group]
                for lane in range(LANES):
                    part = f32(found[r, lane]) * (scale * steps[group, lane])
                    totals[r, lane] = totals[r, lane] + part + total * offsets[group, lane]
        for r in range(rows):
            for lane in range(LANES):
                out[row + r, at + lane] = totals[r, lane]

    return kernel


# Of bfloat16 and float32.


@plain
def float_product(x: np.ndarray, weights: np.ndarray, steps: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    rows = len(x)
    for block in range(len(weights)):
        row, at = 0, block * LANES
        while rows - row >= 8:
            eight_rows(x, row, weights[block], steps[block], offsets[block], out, at)
            row += 8
        if rows - row >= 4:
            four_rows(x, row, weights[block], steps[block], offsets[block], out, at)
            row += 4
        if rows - row >= 2:
            two_rows(x, row, weights[block], steps[block], offsets[block], out, at)
            row += 2
        if rows - row:
            one_row(x, row, weights[block], steps[block], offsets[block], out, at)


def some_rows(rows: int) -> Any:
    """As `some_integer_rows`; the sums of each row are taken in the same order, however many there are."""

    @fused
    def kernel(
        x: np.ndarray,
        row: int,
        integers: np.ndarray,
        steps: np.ndarray,
        offsets: np.ndarray,
        out: np.ndarray,
        at: int,
    ) -> None:
        size = len(integers) // len(steps)
        sums = np.zeros((rows, LANES), np.float32)
        inputs = np.empty((rows, TOGETHER), np.float32)  # of their own, so that the compiler knows that they stay
        for group in range(len(steps)):
            for i in range(group * size, (group + 1) * size, TOGETHER):
                for r in range(rows):
                    for j in range(TOGETHER):
                        inputs[r, j] = x[row + r, i + j]
                for lane in range(LANES):
                    step, offset = steps[group, lane], offsets[group, lane]
                    w0 = number(integers[i, lane]) * step + offset
                    w1 = number(integers[i + 1, lane]) * step + offset
                    w2 = number(integers[i + 2, lane]) * step + offset
                    w3 = number(integers[i + 3, lane]) * step + offset
                    for r in range(rows):
                        total = sums[r, lane] + inputs[r, 0] * w0 + inputs[r, 1] * w1
                        sums[r, lane] = total + inputs[r, 2] * w2 + inputs[r, 3] * w3
        for r in range(rows):
            for lane in range(LANES):
                out[row + r, at + lane] = sums[r, lane]

    return kernel


@plain
def embed(ids: np.ndarray, matrix: Matrix, out: np.ndarray) -> None:
    """Rows of a matrix, as float32 (ids, in): the input embeddings, which are the output matrix too."""
    _embed(ids, matrix.integers, matrix.steps, matrix.offsets, out)


@fused
def _embed(ids: np.ndarray, weights: np.ndarray, steps: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    size = out.shape[1] // steps.shape[1]
    for row in range(len(ids)):
        block, lane = ids[row] // LANES, ids[row] % LANES
        for i in range(out.shape[1]):
            if weights.ndim == 4:
                stored = number(weights[block, i // 2, lane, i % 2])
            else:
                stored = number(weights[block, i, lane])
            out[row, i] = stored * steps[block, i // size, lane] + offsets[block, i // size, lane]


# -- numbers ---------------------------------------------------------------------------------------


@intrinsic
def number(_: Any, stored: Any) -> Any:
    """float32 of int8, of float32, or of bfloat16's bits in a uint16."""

    def generate(__: Any, builder: ir.IRBuilder, ___: Any, arguments: Any) -> Any:
        (value,) = arguments
        if stored == types.int8:
            return builder.sitofp(value, ir.FloatType())
        if stored == types.uint16:
            bits = builder.zext(value, ir.IntType(32))
            return builder.bitcast(builder.shl(bits, ir.Constant(ir.IntType(32), 16)), ir.FloatType())
        return value

    return types.float32(stored), generate


@intrinsic
def power_of_two(_: Any, exponent: Any) -> Any:
    """2 ** exponent, int32 from -126 to 127."""

    def generate(__: Any, builder: ir.IRBuilder, ___: Any, arguments: Any) -> Any:
        (value,) = arguments
        biased = builder.add(value, ir.Constant(ir.IntType(32), 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(ir.IntType(32), 23)), ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def place(_: Any, array: Any, number: Any) -> Any:
    """Address of an element of an array, counted through all of it."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.gep(data, [arguments[1]])

    return types.CPointer(array.dtype)(array, types.int64), generate


INT32, INT64 = ir.IntType(32), ir.IntType(64)
LANE_VECTOR, PAIR_VECTOR = ir.VectorType(INT32, 16), ir.VectorType(ir.IntType(16), 32)


def dots_of(rows: int) -> Any:
    """Sums of products of int16 and int8 over `pairs` of inputs, for some rows and 64 lanes, as int32 (rows, 64).

    Written for the compiler in vectors of 16 lanes, two inputs each, which it recognises as VNNI's `vpdpwssd`, AVX2's
    `vpmaddwd`, or whatever the processor has for it. `inputs`: from one row of x to the next.
    """

    @intrinsic
    def dots(_: Any, x: Any, inputs: Any, weights: Any, pairs: Any, out: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, __: Any, arguments: Any) -> Any:
            x, inputs, weights, pairs, out = arguments
            b = builder
            rows_of_x = [b.gep(x, [b.mul(inputs, ir.Constant(INT64, row))]) for row in range(rows)]
            bytes_of = b.bitcast(weights, ir.VectorType(ir.IntType(8), 32).as_pointer())
            before = b.block
            loop, end = b.append_basic_block("pairs"), b.append_basic_block("end")
            b.branch(loop)
            b.position_at_end(loop)
            pair = b.phi(INT64)
            pair.add_incoming(ir.Constant(INT64, 0), before)
            sums = [[b.phi(LANE_VECTOR) for _ in range(4)] for _ in range(rows)]
            taken = []
            for vector in range(4):
                at = b.add(b.mul(pair, ir.Constant(INT64, 4)), ir.Constant(INT64, vector))
                taken.append(b.sext(b.load(b.gep(bytes_of, [at]), align=1), PAIR_VECTOR))
            found = []
            for row in range(rows):
                both = b.load(b.gep(b.bitcast(rows_of_x[row], INT32.as_pointer()), [pair]), align=2)
                inputs_of_row = b.bitcast(_everywhere(b, both), PAIR_VECTOR)
                found.append([b.add(sums[row][v], _pair_sums(b, inputs_of_row, taken[v])) for v in range(4)])
            following = b.add(pair, ir.Constant(INT64, 1))
            pair.add_incoming(following, loop)
            for old, new in zip(sums, found, strict=True):
                for vector in range(4):
                    old[vector].add_incoming(ir.Constant(LANE_VECTOR, None), before)
                    old[vector].add_incoming(new[vector], loop)
            b.cbranch(b.icmp_signed("<", following, pairs), loop, end)
            b.position_at_end(end)
            vectors = b.bitcast(out, LANE_VECTOR.as_pointer())
            for row in range(rows):
                for vector in range(4):
                    b.store(found[row][vector], b.gep(vectors, [ir.Constant(INT64, 4 * row + vector)]), align=4)
            return context.get_dummy_value()

        arguments = (
            types.CPointer(types.int16), types.int64, types.CPointer(types.int8), types.int64,
            types.CPointer(types.int32),
        )  # fmt: skip
        return types.void(*arguments), generate

    return dots


def _everywhere(builder: ir.IRBuilder, value: Any) -> Any:
    nothing = ir.Constant(LANE_VECTOR, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(LANE_VECTOR, [0] * 16))


def _pair_sums(builder: ir.IRBuilder, x: Any, weights: Any) -> Any:
    wide = ir.VectorType(INT32, 32)
    products, nothing = builder.mul(builder.sext(x, wide), builder.sext(weights, wide)), ir.Constant(wide, ir.Undefined)
    first, second = (
        builder.shuffle_vector(products, nothing, ir.Constant(LANE_VECTOR, list(range(start, 32, 2))))
        for start in (0, 1)
    )
    return builder.add(first, second)


@intrinsic
def address(_: Any, number: Any) -> Any:
    def generate(__: Any, builder: ir.IRBuilder, ___: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@fused
def exponential(x: float) -> float:
    """e ** x in float32, to 2e-7 of itself; 0 below -87 (Cephes' `expf`, written so that it runs on vectors)."""
    bounded = min(max(x, f32(-87)), f32(88))
    whole = np.int32(bounded * f32(1.44269504) + f32(1024.5)) - np.int32(1024)
    rest = bounded - f32(whole) * f32(0.693359375) + f32(whole) * f32(2.12194440e-4)
    p = f32(1.9875691500e-4)
    p = p * rest + f32(1.3981999507e-3)
    p = p * rest + f32(8.3334519073e-3)
    p = p * rest + f32(4.1665795894e-2)
    p = p * rest + f32(1.6666665459e-1)
    p = p * rest + f32(5.0000001201e-1)
    p = p * rest * rest + rest + f32(1)
    return p * power_of_two(whole) if x >= f32(-87) else f32(0)


# -- kernels for some numbers of rows ----------------------------------------------------------------

one_row, two_rows, four_rows, eight_rows = some_rows(1), some_rows(2), some_rows(4), some_rows(8)
one_integer_row, two_integer_rows = some_integer_rows(1), some_integer_rows(2)
four_integer_rows, six_integer_rows = some_integer_rows(4), some_integer_rows(6)
