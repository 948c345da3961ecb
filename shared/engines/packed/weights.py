"""The layout of converted weights: matrices as `kernels` reads them, in the smallest numbers that lose nothing.

A checkpoint quantised for llama.cpp has integers of four to eight bits, and for each 16 or 32 inputs of a row a scale
and a minimum (`Q4_1`: scale * 0..15 + min). transformers reads these as plain floats; here the integers are found
again, and take one byte each. Other checkpoints stay in bfloat16 if they were published in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FORMAT = 2
"""Number of the layout on disk. Raise it with any change to the names, shapes, types or order of numbers of what a
network's `pack` writes, here or in an architecture's module: folders of another number are converted again."""
LANES = 64
"""As in `kernels`, which is not imported here, because it brings a compiler along."""
GROUPS = (32, 16)
"""Inputs that share a scale, in the formats of llama.cpp."""
LEVELS = 63
"""Most levels of a format with a minimum: those of six bits."""
TOLERANCE, TOLERANCE_WITH_MIN = 2e-6, 1e-4
"""Rounding errors of float32, as a share of the level; more where a minimum was subtracted."""
INT8_GROUP = 128
"""Inputs that share a scale where floats are rounded to int8. MiniLM's vectors have a cosine of 0.9996 or more with
float32's (200 texts). Groups of 32 lose less, and take a fifth longer; a whole row loses more, in the same time."""
SAMPLE = 2048
"""Groups that are tried before all of them are."""

PARTS = ("quants", "scales", "mins")


def pack(name: str, matrices: Sequence[Tensor]) -> dict[str, Tensor]:
    """Matrices of one shape, one for each layer, stacked as `name.quants`, `name.scales` and `name.mins`.

    `matrices`: float32 (out, in) each. `quants`: int8 (layers, blocks, in / 2, 64, 2), or bfloat16's bits as int16, or
    float32, (layers, blocks, in, 64). `scales` and `mins`: float32 (layers, blocks, groups, 64). The last block is
    padded with zeros.
    """
    grids = next((found for size in GROUPS if (found := _on_grids(matrices, size)) is not None), None)
    if grids is None:
        half = all(bool((m == m.bfloat16().float()).all()) for m in matrices)
        numbers = [m.bfloat16().view(torch.int16) if half else m for m in matrices]
        grids = [(n, torch.ones(len(n), 1), torch.zeros(len(n), 1)) for n in numbers]
    return pack_blocks(name, grids)


def pack_rounded(name: str, matrices: Sequence[Tensor], size: int = INT8_GROUP) -> dict[str, Tensor]:
    """As `pack`, but floats are rounded to int8; groups of `size` inputs share a scale.

    The rounding error is at most half a scale, a 254th of the group's greatest weight.
    """
    grids = []
    for matrix in matrices:
        groups = matrix.float().reshape(len(matrix), -1, math.gcd(matrix.shape[1], size))
        scales = (groups.abs().amax(2) / 127).clamp_min(1e-12)
        quants = (groups / scales[:, :, None]).round().to(torch.int8)
        grids.append((quants.view(matrix.shape), scales, torch.zeros_like(scales)))
    return pack_blocks(name, grids)


def pack_blocks(name: str, grids: Sequence[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
    """As `pack`, from each layer's quants (out, in), and its scales and mins (out, groups)."""
    parts = [torch.stack([_blocks(matrix) for matrix in column]) for column in zip(*grids, strict=True)]
    if parts[0].dtype == torch.int8:  # two inputs of an output side by side, as the processor multiplies them
        layers, blocks, inputs, _ = parts[0].shape
        parts[0] = parts[0].view(layers, blocks, inputs // 2, 2, LANES).transpose(3, 4).contiguous()
    return {f"{name}.{part}": tensor for part, tensor in zip(PARTS, parts, strict=True)}


def parts_of(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Quants, scales and mins of the matrices called `name`."""
    quants, scales, mins = (weights[f"{name}.{part}"] for part in PARTS)
    return quants, scales, mins


def _blocks(matrix: Tensor) -> Tensor:
    """(out, n) to (blocks, n, 64), so that 64 outputs' numbers for one input lie together."""
    missing = -len(matrix) % LANES
    whole = torch.cat((matrix, matrix.new_zeros(missing, matrix.shape[1])))
    return whole.view(-1, LANES, matrix.shape[1]).transpose(1, 2).contiguous()


def _on_grids(matrices: Sequence[Tensor], size: int) -> list[tuple[Tensor, Tensor, Tensor]] | None:
    """Each matrix's quants (out, in), scales and mins (out, in / size); None unless all groups lie on levels."""
    if any(m.shape[1] % size for m in matrices):
        return None
    # Most checkpoints are not quantised, and a few groups show that.
    if any(grid_of(m.reshape(-1, size)[:SAMPLE]) is None for m in matrices):
        return None
    found = []
    for matrix in matrices:
        grid = grid_of(matrix.reshape(-1, size))
        if grid is None:
            return None
        quants, scales, mins = grid
        per_row = (len(matrix), matrix.shape[1] // size)
        found.append((quants.view(matrix.shape), scales.view(per_row), mins.view(per_row)))
    return found


def grid_of(groups: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Quants, scale and min of each group of a float32 (groups, size) matrix; None where one group has no levels.

    Levels are `scale * n` with the greatest at 127 (as in `Q8_0`), or a few equal steps from the least to the greatest.
    """
    quants = torch.zeros(groups.shape, dtype=torch.int8)
    scales, mins = torch.zeros(len(groups)), torch.zeros(len(groups))
    left = torch.arange(len(groups))
    for levels in (127, *range(15, 0, -1), *range(LEVELS, 15, -1)):
        values = groups[left]
        least = values.amin(1)
        if levels == 127:
            scale, minimum = values.abs().amax(1) / 127, torch.zeros(len(values))
        else:
            scale, minimum = (values.amax(1) - least) / levels, least
        scale = scale.clamp_min(1e-30)
        places = (values - minimum[:, None]) / scale[:, None]
        nearest = places.round()
        tolerance = TOLERANCE if levels == 127 else TOLERANCE_WITH_MIN
        fits = ((places - nearest).abs() <= tolerance * nearest.abs().clamp_min(1)).all(1)
        at = left[fits]
        quants[at], scales[at], mins[at] = nearest[fits].to(torch.int8), scale[fits], minimum[fits]
        left = left[~fits]
        if not len(left):
            return quants, scales, mins
    return None
