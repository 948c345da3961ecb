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

    weight = scale * quant + min, in groups of inputs. `quants`: int8 (blocks, in / 2, 64, 2), or bfloat16 as
    uint16, or float32, (blocks, in, 64). `scales` and `mins`: float32 (blocks, groups, 64).
    """

    quants: np.ndarray
    scales: np.ndarray
    mins: np.ndarray


class Affine(NamedTuple):
    """A matrix and its bias: float32 (out,) or (layers, out)."""

    matrix: Matrix
    bias: np.ndarray


@plain
def layer_of(matrix: Matrix, layer: int) -> Matrix:
    return Matrix(matrix.quants[layer], matrix.scales[layer], matrix.mins[layer])


@plain
def affine_of(one: Affine, layer: int) -> Affine:
    return Affine(layer_of(one.matrix, layer), one.bias[layer])


@plain
def product(x: np.ndarray, matrix: Matrix, out: np.ndarray) -> None:
    """Rows times a matrix: float32 (rows, in) to (rows, out)."""
    _product(x, matrix.quants, matrix.scales, matrix.mins, out)


@plain
def affine(x: np.ndarray, one: Affine, out: np.ndarray) -> None:
    """Rows times a matrix, plus a bias."""
    product(x, one.matrix, out)
    for row in range(len(x)):
        for i in range(len(one.bias)):
            out[row, i] += one.bias[i]


@plain
def _product(x: np.ndarray, quants: np.ndarray, scales: np.ndarray, mins: np.ndarray, out: np.ndarray) -> None:
    if quants.ndim == 4:
        integer_product(x, quants, scales, mins, out)
    else:
        float_product(x, quants, scales, mins, out)


# -- of integers: exact, but for the rounding of the activations to 16 bits (2e-5 of the largest of a group) --------


@plain
def integer_product(x: np.ndarray, quants: np.ndarray, scales: np.ndarray, mins: np.ndarray, out: np.ndarray) -> None:
    rows, inputs = x.shape
    x_quants = np.empty((rows, inputs), np.int16)
    x_scales = np.empty((rows, scales.shape[1]), np.float32)
    sums = np.empty((rows, scales.shape[1]), np.float32)
    quantize_rows(x, x_quants, x_scales, sums)
    for block in range(len(quants)):
        row, at = 0, block * LANES
        while rows - row >= 6:  # as many as the registers of AVX-512 hold the sums of
            six_integer_rows(x_quants, x_scales, sums, row, quants[block], scales[block], mins[block], out, at)
            row += 6
        if rows - row >= 4:
            four_integer_rows(x_quants, x_scales, sums, row, quants[block], scales[block], mins[block], out, at)
            row += 4
        if rows - row >= 2:
            two_integer_rows(x_quants, x_scales, sums, row, quants[block], scales[block], mins[block], out, at)
            row += 2
        if rows - row:
            one_integer_row(x_quants, x_scales, sums, row, quants[block], scales[block], mins[block], out, at)


@fused
def quantize_rows(x: np.ndarray, quants: np.ndarray, scales: np.ndarray, sums: np.ndarray) -> None:
    """Activations as int16 times the scale of their group, the largest of which is 32767, and the sum of each group."""
    group = x.shape[1] // scales.shape[1]
    for row in range(x.shape[0]):
        for g in range(scales.shape[1]):
            # Slices, because the compiler does not know that a product of indices is not negative.
            some, out = x[row, g * group : (g + 1) * group], quants[row, g * group : (g + 1) * group]
            greatest = in_order(f32(1e-30))
            for i in range(group):
                greatest = max(greatest, in_order(abs(some[i])))
            most = of_order(greatest)
            inverse, total = f32(32767) / most, np.int32(0)
            for i in range(group):
                integer = np.int32(some[i] * inverse + f32(32768.5)) - np.int32(32768)  # the nearest
                out[i] = integer
                total += integer
            scales[row, g] = most / f32(32767)
            sums[row, g] = scales[row, g] * f32(total)


def some_integer_rows(rows: int) -> Any:
    """The product of so many rows, from `row` on, with one block of weights, into `out` from column `at` on."""
    dots = dots_of(rows)

    @fused
    def kernel(
        x: np.ndarray,
        x_scales: np.ndarray,
        sums: np.ndarray,
        row: int,
        quants: np.ndarray,
        scales: np.ndarray,
        mins: np.ndarray,
        out: np.ndarray,
        at: int,
    ) -> None:
        inputs, groups = x.shape[1], len(scales)
        size = inputs // groups
        found, totals = np.empty((rows, LANES), np.int32), np.zeros((rows, LANES), np.float32)
        for group in range(groups):
            start = group * size
            dots(element(x, row * inputs + start), inputs, element(quants, start * LANES), size // 2, element(found, 0))
            for r in range(rows):
                x_scale, total = x_scales[row + r, group], sums[row + r, group]
                for lane in range(LANES):
                    part = f32(found[r, lane]) * (x_scale * scales[group, lane])
                    totals[r, lane] = totals[r, lane] + part + total * mins[group, lane]
        for r in range(rows):
            for lane in range(LANES):
                out[row + r, at + lane] = totals[r, lane]

    return kernel


# -- of bfloat16 and float32 ------------------------------------------------------------------------


@plain
def float_product(x: np.ndarray, quants: np.ndarray, scales: np.ndarray, mins: np.ndarray, out: np.ndarray) -> None:
    rows = len(x)
    for block in range(len(quants)):
        row, at = 0, block * LANES
        while rows - row >= 8:
            eight_rows(x, row, quants[block], scales[block], mins[block], out, at)
            row += 8
        if rows - row >= 4:
            four_rows(x, row, quants[block], scales[block], mins[block], out, at)
            row += 4
        if rows - row >= 2:
            two_rows(x, row, quants[block], scales[block], mins[block], out, at)
            row += 2
        if rows - row:
            one_row(x, row, quants[block], scales[block], mins[block], out, at)


def some_rows(rows: int) -> Any:
    """As `some_integer_rows`; the sums of each row are taken in the same order, however many there are."""

    @fused
    def kernel(
        x: np.ndarray,
        row: int,
        quants: np.ndarray,
        scales: np.ndarray,
        mins: np.ndarray,
        out: np.ndarray,
        at: int,
    ) -> None:
        size = len(quants) // len(scales)
        sums = np.zeros((rows, LANES), np.float32)
        inputs = np.empty((rows, TOGETHER), np.float32)  # of their own, so that the compiler knows that they stay
        for group in range(len(scales)):
            for i in range(group * size, (group + 1) * size, TOGETHER):
                for r in range(rows):
                    for j in range(TOGETHER):
                        inputs[r, j] = x[row + r, i + j]
                for lane in range(LANES):
                    scale, least = scales[group, lane], mins[group, lane]
                    w0 = number(quants[i, lane]) * scale + least
                    w1 = number(quants[i + 1, lane]) * scale + least
                    w2 = number(quants[i + 2, lane]) * scale + least
                    w3 = number(quants[i + 3, lane]) * scale + least
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
    _embed(ids, matrix.quants, matrix.scales, matrix.mins, out)


@fused
def _embed(ids: np.ndarray, quants: np.ndarray, scales: np.ndarray, mins: np.ndarray, out: np.ndarray) -> None:
    size = out.shape[1] // scales.shape[1]
    for row in range(len(ids)):
        block, lane = ids[row] // LANES, ids[row] % LANES
        for i in range(out.shape[1]):
            if quants.ndim == 4:  # noqa: SIM108 - numba drops a branch, not half of an expression
                quant = number(quants[block, i // 2, lane, i % 2])
            else:
                quant = number(quants[block, i, lane])
            out[row, i] = quant * scales[block, i // size, lane] + mins[block, i // size, lane]


@plain
def add_positions(x: np.ndarray, positions: np.ndarray, table: np.ndarray) -> None:
    """Adds learned positions, float32 (positions, width), to embedded tokens, in place."""
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            x[row, i] += table[positions[row], i]


# -- kernels for some numbers of rows ----------------------------------------------------------------

one_row, two_rows, four_rows, eight_rows = some_rows(1), some_rows(2), some_rows(4), some_rows(8)
one_integer_row, two_integer_rows = some_integer_rows(1), some_integer_rows(2)
four_integer_rows, six_integer_rows = some_integer_rows(4), some_integer_rows(6)
