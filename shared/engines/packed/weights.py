"""Matrices as `kernels` reads them, in the smallest numbers that lose nothing of what was published.

A checkpoint quantised for llama.cpp holds integers of four to eight bits, and for each 16 or 32 inputs of a row a step
and an offset (`Q4_1`: step * 0..15 + offset). Once read by transformers these are plain floats; here the integers are
found again, and kept as one byte each. Others stay in bfloat16 if that is what they were published in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FORMAT = 1
"""Number of the layout on disk. Raise it with any change to the names, shapes, types or order of numbers of what a
network's `pack` writes, here or in an architecture's module: folders of another number are converted again."""
LANES = 64
"""As in `kernels`, which is not imported here, because it brings a compiler along."""
GROUPS = (32, 16)
"""Inputs that share a step, in the formats of llama.cpp."""
LEVELS = 63
"""Levels with an offset that are looked for: formats of up to six bits."""
NEAR, NEAR_OFFSET = 2e-6, 1e-4
"""What float32 leaves of the distance to a level: a share of it and, where an offset was taken away, more."""
ROUNDED_TOGETHER = 128
"""Inputs that share a step where floats are rounded. MiniLM's vectors keep a cosine of 0.9996 or more with float32's
(200 texts). Steps for 32 inputs lose less, and take a fifth longer; one for a whole row loses more, in as long."""
SAMPLE = 2048
"""Groups that are looked at before all of them are."""

PARTS = ("integers", "steps", "offsets")


def stored(name: str, matrices: Sequence[Tensor]) -> dict[str, Tensor]:
    """Matrices of one shape, one for each layer, under `name.integers` and so on, stacked.

    Each (out, in) float32. `integers`: int8 (layers, blocks, in / 2, 64, 2), or bfloat16's bits in an int16, or
    float32, (layers, blocks, in, 64); `steps` and `offsets`: float32 (layers, blocks, groups, 64). What is missing in
    the last block is 0.
    """
    grids = next((found for size in GROUPS if (found := _on_grids(matrices, size)) is not None), None)
    if grids is None:
        half = all(bool((m == m.bfloat16().float()).all()) for m in matrices)
        numbers = [m.bfloat16().view(torch.int16) if half else m for m in matrices]
        grids = [(n, torch.ones(len(n), 1), torch.zeros(len(n), 1)) for n in numbers]
    return in_groups(name, grids)


def rounded(name: str, matrices: Sequence[Tensor], size: int = ROUNDED_TOGETHER) -> dict[str, Tensor]:
    """The same of matrices that were published in floats, as int8: groups of `size` inputs share a step.

    What is lost is half a step, a 254th of a group's greatest weight.
    """
    grids = []
    for matrix in matrices:
        groups = matrix.float().reshape(len(matrix), -1, math.gcd(matrix.shape[1], size))
        steps = (groups.abs().amax(2) / 127).clamp_min(1e-12)
        integers = (groups / steps[:, :, None]).round().to(torch.int8)
        grids.append((integers.view(matrix.shape), steps, torch.zeros_like(steps)))
    return in_groups(name, grids)


def in_groups(name: str, grids: Sequence[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
    """Of integers (out, in), steps and offsets (out, groups) of each layer what `stored` says."""
    parts = [torch.stack([_blocks(matrix) for matrix in column]) for column in zip(*grids, strict=True)]
    if parts[0].dtype == torch.int8:  # two inputs of an output side by side, as the processor multiplies them
        layers, blocks, inputs, _ = parts[0].shape
        parts[0] = parts[0].view(layers, blocks, inputs // 2, 2, LANES).transpose(3, 4).contiguous()
    return {f"{name}.{part}": tensor for part, tensor in zip(PARTS, parts, strict=True)}


def parts_of(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor, Tensor]:
    integers, steps, offsets = (weights[f"{name}.{part}"] for part in PARTS)
    return integers, steps, offsets


def _blocks(matrix: Tensor) -> Tensor:
    """(out, n) to (blocks, n, 64), so that 64 outputs' numbers for one input lie together."""
    missing = -len(matrix) % LANES
    whole = torch.cat((matrix, matrix.new_zeros(missing, matrix.shape[1])))
    return whole.view(-1, LANES, matrix.shape[1]).transpose(1, 2).contiguous()


def _on_grids(matrices: Sequence[Tensor], size: int) -> list[tuple[Tensor, Tensor, Tensor]] | None:
    """Integers (out, in), steps and offsets (out, in / size) of each; None unless all groups lie on levels."""
    if any(m.shape[1] % size for m in matrices):
        return None
    # Most checkpoints are not quantised, and a few groups tell.
    if any(grid_of(m.reshape(-1, size)[:SAMPLE]) is None for m in matrices):
        return None
    found = []
    for matrix in matrices:
        grid = grid_of(matrix.reshape(-1, size))
        if grid is None:
            return None
        integers, steps, offsets = grid
        per_row = (len(matrix), matrix.shape[1] // size)
        found.append((integers.view(matrix.shape), steps.view(per_row), offsets.view(per_row)))
    return found


def grid_of(groups: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Of float32 (groups, size): integers int8, and step and offset of each group; None where one has no levels.

    Levels are `step * n` with the greatest at 127 (as in `Q8_0`), or a few equal steps from the least to the greatest.
    """
    integers = torch.zeros(groups.shape, dtype=torch.int8)
    steps, offsets = torch.zeros(len(groups)), torch.zeros(len(groups))
    left = torch.arange(len(groups))
    for levels in (127, *range(15, 0, -1), *range(LEVELS, 15, -1)):
        values = groups[left]
        least = values.amin(1)
        if levels == 127:
            step, offset = values.abs().amax(1) / 127, torch.zeros(len(values))
        else:
            step, offset = (values.amax(1) - least) / levels, least
        step = step.clamp_min(1e-30)
        places = (values - offset[:, None]) / step[:, None]
        nearest = places.round()
        near = NEAR if levels == 127 else NEAR_OFFSET
        fits = ((places - nearest).abs() <= near * nearest.abs().clamp_min(1)).all(1)
        at = left[fits]
        integers[at], steps[at], offsets[at] = nearest[fits].to(torch.int8), step[fits], offset[fits]
        left = left[~fits]
        if not len(left):
            return integers, steps, offsets
    return None
