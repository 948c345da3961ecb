"""A head on frozen musicnn features: labels that exclude each other, one of which may be "none of these".

The head lies in `heads/<checkpoint's id>`: standardization, one linear layer, and a model card that says what it
was trained on. Its weights are musicnn's own, in a copy of 6 MB.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from shared.checkpoints.catalog import Checkpoint
from shared.engines.audio import musicnn
from shared.engines.compute import Compute, run_here
from shared.engines.protocols import AudioEncoder, NoCache
from shared.errors import WeightsCorrupt
from shared.events import Progress
from shared.settings import Settings

HEADS = Path(__file__).with_name("heads")
WEIGHTS = "head.safetensors"
WIDTHS = {"penultimate": 400, "pooled": 3012}

Layer = Literal["penultimate", "pooled"]


@dataclass(frozen=True)
class Head:
    """`((features - mean) * scale) @ weight.T + bias`, all float32."""

    labels: tuple[str, ...]
    layer: Layer
    """Which of musicnn's features it reads."""
    mean: np.ndarray
    """(features,)."""
    scale: np.ndarray
    """(features,): one over the standard deviation in training."""
    weight: np.ndarray
    """(labels, features)."""
    bias: np.ndarray
    """(labels,). Temperature and the threshold of "none of these" are in weight and bias already."""

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float32 (windows, features) → float32 logits (windows, labels)."""
        return ((features - self.mean) * self.scale) @ self.weight.T + self.bias

    def write(self, path: Path) -> None:
        tensors = {name: torch.from_numpy(getattr(self, name)) for name in ("mean", "scale", "weight", "bias")}
        save_file(tensors, path, {"labels": json.dumps(self.labels), "layer": self.layer})


def read_head(path: Path) -> Head:
    """Raises `WeightsCorrupt` where the file is no head."""
    try:
        with safe_open(path, "numpy") as file:
            said = file.metadata()
            tensors = {name: file.get_tensor(name) for name in ("mean", "scale", "weight", "bias")}
        labels, layer = tuple(json.loads(said["labels"])), cast(Layer, said["layer"])
        width = WIDTHS[layer]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsCorrupt(
            f"{path.name} of {path.parent.name} cannot be read as a head on musicnn: {error}"
        ) from error
    expected = {"mean": (width,), "scale": (width,), "weight": (len(labels), width), "bias": (len(labels),)}
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise WeightsCorrupt(
                f"{name} in {path.name} of {path.parent.name} has the shape {tensors[name].shape}, not {shape}"
            )
    return Head(labels, layer, **tensors)


class MusicnnHead(NoCache):
    """An `AudioClassifier` whose labels exclude each other."""

    name = "torch-fp32"
    multi_label = False

    def __init__(self, body: AudioEncoder, head: Head) -> None:
        self.body = body
        self.head = head
        self.labels = head.labels
        self.sampling_rate = body.sampling_rate
        self.nbytes = body.nbytes + head.weight.nbytes

    def logits(self, windows: Sequence[np.ndarray], compute: Compute = run_here) -> np.ndarray:
        """float32 mono windows of equal length in [-1, 1] at 16 kHz → float32, shape (windows, labels).

        Raises `InvalidInput` (field `audio`) for windows without a sample.
        """
        return self.head(self.body.features(windows, compute, layer=self.head.layer))


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most."""
    return checkpoint.parameters * 4


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> MusicnnHead:
    """Reads musicnn from a verified folder and the head of this checkpoint's id. Raises `WeightsCorrupt`."""
    head = read_head(HEADS / checkpoint.id / WEIGHTS)
    return MusicnnHead(musicnn.load(checkpoint, folder, settings, progress), head)


def prepare(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Path:
    return musicnn.prepare(checkpoint, folder, settings, progress)
