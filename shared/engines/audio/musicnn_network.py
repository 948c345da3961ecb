"""The network of musicnn (Pons & Serra 2019, "musicnn: Pre-trained convolutional neural networks for music audio
tagging"), for tagging. It follows the authors' `models.py` layer by layer; a test holds both equal.

Musically motivated filters: two *timbral* layers see 7 frames and 38 or 67 of the 96 bands at once, three *temporal*
ones 128, 64 or 32 frames of one band; each keeps its maximum over the bands. Three layers with residual connections
follow, then mean and maximum over time of everything so far, and two dense layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from shared.errors import WeightsCorrupt

NORM_EPSILON = 1e-3
"""Of TensorFlow's batch normalisation."""
TIMBRAL, TEMPORAL = 2, 3
"""Layers of the front end, of either kind; numbers of TensorFlow's names follow this order."""
SHAPES: dict[str, tuple[int, ...]] = {
    "conv2d": (204, 1, 7, 38),
    "conv2d_1": (204, 1, 7, 67),
    "conv2d_2": (51, 1, 128, 1),
    "conv2d_3": (51, 1, 64, 1),
    "conv2d_4": (51, 1, 32, 1),
    "conv2d_5": (64, 561, 7),
    "conv2d_6": (64, 64, 7),
    "conv2d_7": (64, 64, 7),
    "dense": (200, 1506),
    "dense_1": (50, 200),
}
"""Of the kernels, as PyTorch has them: (out, in, time, bands), (out, in, time) and (out, in)."""
NORMS = (1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200)
"""Channels of the batch normalisations: of the input, front end, middle, pooled and dense features."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The network's outputs for some windows."""

    logits: Tensor
    """(windows, 50)"""
    penultimate: Tensor
    """(windows, 200): the last dense layer before the tags."""
    pooled: Tensor
    """(windows, 1506): each of 753 features' maximum and mean over time, by turns."""


class Network:
    """One network with its weights."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Raises `WeightsCorrupt` when a tensor is missing or of another shape."""
        for name, shape in expected_shapes().items():
            if name not in weights:
                raise WeightsCorrupt(f"{name} is missing")
            if tuple(weights[name].shape) != shape:
                raise WeightsCorrupt(f"{name} is of shape {tuple(weights[name].shape)}, not {shape}")
        self._weights = weights
        self.nbytes = sum(weights[name].nbytes for name in expected_shapes())

    def __call__(self, log_mel: Tensor) -> Outputs:
        """float32 log-mel windows, shape (windows, frames, 96); any number of frames from 1 on."""
        x = self._norm(0, log_mel[:, None])
        # Padded over time alone: the maximum over the bands follows.
        timbral = functional.pad(x, (0, 0, 3, 3))
        front = [self._front(number, timbral) for number in range(TIMBRAL)]
        for number in range(TIMBRAL, TIMBRAL + TEMPORAL):
            size = SHAPES[f"conv2d_{number}"][2]
            # TensorFlow pads even kernels by one more at the end.
            front.append(self._front(number, functional.pad(x, (0, 0, (size - 1) // 2, size // 2))))
        features = torch.cat(front, 1)
        first = self._middle(5, features)
        second = first + self._middle(6, first)
        third = second + self._middle(7, second)
        features = torch.cat([features, first, second, third], 1)
        pooled = torch.stack([features.amax(2), features.mean(2)], 2).flatten(1)
        hidden = functional.relu(self._dense("dense", self._norm(9, pooled)))
        penultimate = self._norm(10, hidden)
        return Outputs(self._dense("dense_1", penultimate), penultimate, pooled)

    def _front(self, number: int, x: Tensor) -> Tensor:
        name = "conv2d" if number == 0 else f"conv2d_{number}"
        found = functional.conv2d(x, self._weights[f"{name}/kernel"], self._weights[f"{name}/bias"])
        return self._norm(number + 1, functional.relu(found)).amax(3)

    def _middle(self, number: int, x: Tensor) -> Tensor:
        name = f"conv2d_{number}"
        found = functional.conv1d(x, self._weights[f"{name}/kernel"], self._weights[f"{name}/bias"], padding=3)
        return self._norm(number + 1, functional.relu(found))

    def _dense(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self._weights[f"{name}/kernel"], self._weights[f"{name}/bias"])

    def _norm(self, number: int, x: Tensor) -> Tensor:
        mean, variance, gamma, beta = (self._weights[name] for name in _norm_names(number))
        return functional.batch_norm(x, mean, variance, gamma, beta, eps=NORM_EPSILON)


def _norm_names(number: int) -> list[str]:
    layer = "batch_normalization" if number == 0 else f"batch_normalization_{number}"
    return [f"{layer}/{part}" for part in ("moving_mean", "moving_variance", "gamma", "beta")]


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a network, in PyTorch's order of axes."""
    shapes = {f"{name}/kernel": shape for name, shape in SHAPES.items()}
    shapes |= {f"{name}/bias": shape[:1] for name, shape in SHAPES.items()}
    return shapes | {part: (size,) for number, size in enumerate(NORMS) for part in _norm_names(number)}


def from_tensorflow(tensors: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The tensors of a checkpoint of the authors' in PyTorch's order of axes; the optimizer's state is left out.

    Raises `WeightsCorrupt` when one is missing or does not fit.
    """
    found = {}
    for name, shape in expected_shapes().items():
        if name not in tensors:
            raise WeightsCorrupt(f"{name} is missing")
        values = tensors[name]
        if name.endswith("kernel"):
            if len(shape) == 3:  # (time, in, 1, out): the middle's features lie where bands do in the front end
                values = values.squeeze(2) if values.ndim == 4 and values.shape[2] == 1 else values
                values = values.transpose(range(values.ndim)[::-1])
            else:  # (time, bands, in, out) or (in, out)
                values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T
        if values.shape != shape:
            raise WeightsCorrupt(f"{name} is of shape {values.shape}, not {shape}")
        found[name] = torch.from_numpy(np.array(values, dtype=np.float32, order="C"))
    return found
