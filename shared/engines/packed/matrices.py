"""The kernels' matrices as an engine has them: read from converted weights, and as modules for adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared.engines.kernels.products import LANES, Affine, Matrix, affine, product
from shared.engines.packed.weights import parts_of


def matrix_in(weights: Mapping[str, Tensor], name: str) -> Any:
    """The `Matrix` of that name for all layers; an `Affine` where it has biases."""
    quants, scales, mins = (part.numpy() for part in parts_of(weights, name))
    matrix = Matrix(quants.view(np.uint16) if quants.dtype == np.int16 else quants, scales, mins)
    bias = weights.get(f"{name}.bias")
    return matrix if bias is None else Affine(matrix, bias.numpy())


def number_format(matrix: Matrix | Affine) -> str:
    """The format of its numbers: `int8`, `bf16` or `fp32`."""
    numbers = (matrix.matrix if isinstance(matrix, Affine) else matrix).quants
    return {"int8": "int8", "uint16": "bf16"}.get(str(numbers.dtype), "fp32")


class Product(nn.Module):
    """(rows, in) float32 to (rows, out) float32. A module, so that an adapter can change it."""

    def __init__(self, matrix: Matrix | Affine, out: int) -> None:
        super().__init__()
        self._matrix, self._out = matrix, out

    def forward(self, x: Tensor) -> Tensor:
        inputs, matrix = np.ascontiguousarray(x.numpy()), self._matrix
        biased = isinstance(matrix, Affine)
        blocks = (matrix.matrix if biased else matrix).quants
        result = np.empty((len(inputs), len(blocks) * LANES), np.float32)
        (affine if biased else product)(inputs, matrix, result)
        return torch.from_numpy(result)[:, : self._out]

    def of(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self(torch.from_numpy(x)).numpy())
