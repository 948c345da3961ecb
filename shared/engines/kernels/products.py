"""Rows times a matrix."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shared.engines.kernels.compiling import fused, plain
from shared.engines.kernels.integer_sums import dots_of
from shared.engines.kernels.numbers import element, f32, in_order, number, of_order

LANES = 64
"""Outputs computed side by side: four vectors of AVX-512, eight of AVX2."""
TOGETHER = 4
"""Inputs whose products are added to a sum before it is put back."""


class Matrix(NamedTuple):
    """Weights (out, in) of one layer or, with a dimension more in front, of all layers; blocks of 64 outputs.

    weight = step * integer + offset, in groups of inputs. `integers`: int8 (blocks, in / 2, 64, 2), or bfloat16 as
    uint16, or float32, (blocks, in, 64). `steps` and `offsets`: float32 (blocks, groups, 64).
    """

    integers: np.ndarray
    steps: np.ndarray
    offsets: np.ndarray


class Affine(NamedTuple):
    """A matrix, and what is added to its products: float32 (out,) or (layers, out)."""

    matrix: Matrix
    bias: np.ndarray


@plain
def layer_of(matrix: Matrix, layer: int) -> Matrix:
    return Matrix(matrix.integers[layer], matrix.steps[layer], matrix.offsets[layer])


@plain
def affine_of(one: Affine, layer: int) -> Affine:
    return Affine(layer_of(one.matrix, layer), one.bias[layer])


@plain
def product(x: np.ndarray, matrix: Matrix, out: np.ndarray) -> None:
    """Rows times a matrix: float32 (rows, in) to (rows, out)."""
    _product(x, matrix.integers, matrix.steps, matrix.offsets, out)


@plain
def affine(x: np.ndarray, one: Affine, out: np.ndarray) -> None:
    """The same, and a bias."""
    product(x, one.matrix, out)
    for row in range(len(x)):
        for i in range(len(one.bias)):
            out[row, i] += one.bias[i]


@plain
def _product(x: np.ndarray, weights: np.ndarray, steps: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    if weights.ndim == 4:
        integer_product(x, weights, steps, offsets, out)
    else:
        float_product(x, weights, steps, offsets, out)


# -- of integers: exact, but for the rounding of the activations to 16 bits (2e-5 of the largest of a group) --------


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
            # Slices, because the compiler does not know that a product of indices is not negative.
            some, out = x[row, g * group : (g + 1) * group], integers[row, g * group : (g + 1) * group]
            greatest = in_order(f32(1e-30))
            for i in range(group):
                greatest = max(greatest, in_order(abs(some[i])))
            most = of_order(greatest)
            scale, total = f32(32767) / most, np.int32(0)
            for i in range(group):
                integer = np.int32(some[i] * scale + f32(32768.5)) - np.int32(32768)  # the nearest
                out[i] = integer
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
            dots(
                element(x, row * inputs + start), inputs, element(weights, start * LANES), size // 2, element(found, 0)
            )
            for r in range(rows):
                scale, total = sizes[row + r, group], sums[row + r, group]
                for lane in range(LANES):
                    part = f32(found[r, lane]) * (scale * steps[group, lane])
                    totals[r, lane] = totals[r, lane] + part + total * offsets[group, lane]
        for r in range(rows):
            for lane in range(LANES):
                out[row + r, at + lane] = totals[r, lane]

    return kernel


# -- of bfloat16 and float32 ------------------------------------------------------------------------


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


# -- rows of a matrix -------------------------------------------------------------------------------


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


@plain
def place(x: np.ndarray, positions: np.ndarray, table: np.ndarray) -> None:
    """Adds learned positions, float32 (positions, width), to embedded tokens, in place."""
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[row, i] += table[positions[row], i]


# -- kernels for some numbers of rows ----------------------------------------------------------------

one_row, two_rows, four_rows, eight_rows = some_rows(1), some_rows(2), some_rows(4), some_rows(8)
one_integer_row, two_integer_rows = some_integer_rows(1), some_integer_rows(2)
four_integer_rows, six_integer_rows = some_integer_rows(4), some_integer_rows(6)
