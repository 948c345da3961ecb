"""musicnn (Pons & Serra 2019): tags music by genre, as published, on 3-second windows.

Two networks of one architecture hear every window: one learned the tags that listeners gave the Million Song Dataset
(`msd`), the other those of MagnaTagATune (`mtt`). The genres among their tags are the labels here, the first network's
where both know one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from shared.checkpoints.catalog import Checkpoint
from shared.checkpoints.conversion import converted
from shared.engines.audio.musicnn_network import Network, Outputs, from_tensorflow
from shared.engines.audio.tensor_bundle import read_bundle
from shared.engines.compute import Compute, run_here
from shared.engines.protocols import NoCache
from shared.errors import InvalidInput, WeightsCorrupt
from shared.events import Progress
from shared.media.mel import RATE, log_mel
from shared.settings import Settings

TAGS: dict[str, tuple[str, ...]] = {
    "msd": (
        *("rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s"),
        *("alternative rock", "jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul"),
        *("indie rock", "Mellow", "electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies"),
        *("blues", "hard rock", "ambient", "acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop"),
        *("70s", "party", "country", "easy listening", "sexy", "catchy", "funk", "electro", "heavy metal"),
        *("Progressive rock", "60s", "rnb", "indie pop", "sad", "House", "happy"),
    ),
    "mtt": (
        *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano"),
        *("ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals"),
        *("no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft"),
        *("sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal"),
        *("beats", "harp", "cello", "no voice", "weird", "country", "metal", "female voice", "choral"),
    ),
}
"""The 50 tags of each network in the order of its logits, as the authors' `configuration.py` has them."""

GENRES: dict[str, tuple[str, str]] = {
    "rock": ("msd", "rock"),
    "pop": ("msd", "pop"),
    "electronic": ("msd", "electronic"),
    "dance": ("msd", "dance"),
    "jazz": ("msd", "jazz"),
    "soul": ("msd", "soul"),
    "blues": ("msd", "blues"),
    "country": ("msd", "country"),
    "metal": ("msd", "metal"),
    "hip-hop": ("msd", "Hip-Hop"),
    "folk": ("msd", "folk"),
    "punk": ("msd", "punk"),
    "funk": ("msd", "funk"),
    "house": ("msd", "House"),
    "ambient": ("msd", "ambient"),
    "r&b": ("msd", "rnb"),
    "classical": ("mtt", "classical"),
    "techno": ("mtt", "techno"),
    "opera": ("mtt", "opera"),
    "new age": ("mtt", "new age"),
}
"""Label → network and its tag."""

MOST_FRAMES = 187
"""Frames of the windows that the networks learned from: 3 seconds."""
STEP_WINDOWS = 1
"""Windows of one step: a tenth of a second. Four at once take three times as long each: they fit no cache."""
WEIGHTS = "{}.safetensors"

Layer = Literal["penultimate", "pooled"]


class Musicnn(NoCache):
    """An `AudioClassifier` whose labels are independent of each other."""

    name = "torch-fp32"
    labels = tuple(GENRES)
    sampling_rate = RATE
    multi_label = True

    def __init__(self, networks: Mapping[str, Network]) -> None:
        self.networks = networks
        self.nbytes = sum(network.nbytes for network in networks.values())
        self._places = [(network, TAGS[network].index(tag)) for network, tag in GENRES.values()]

    def logits(self, windows: Sequence[np.ndarray], compute: Compute = run_here) -> np.ndarray:
        """float32 mono windows of equal length in [-1, 1] at 16 kHz → float32, shape (windows, labels).

        Raises `InvalidInput` (field `audio`) for windows without a sample.
        """
        logits = np.zeros((len(windows), len(self.labels)), dtype=np.float32)
        for start, heard in self._outputs(windows, compute):
            for label, (network, tag) in enumerate(self._places):
                found = heard[network].logits[:, tag]
                logits[start : start + len(found), label] = found.numpy()
        return logits

    def features(
        self, windows: Sequence[np.ndarray], compute: Compute = run_here, *, layer: Layer = "penultimate"
    ) -> np.ndarray:
        """Features on which another head can be trained: float32, shape (windows, features), both networks' side by
        side.

        `penultimate` are 200 of each, the layer before the tags; `pooled` 1506 of each, what every layer's features
        came to over the window, maximum and mean by turns.
        """
        rows = [
            np.concatenate([getattr(heard[name], layer).numpy() for name in TAGS], axis=1)
            for _, heard in self._outputs(windows, compute)
        ]
        width = len(TAGS) * {"penultimate": 200, "pooled": 1506}[layer]
        return np.concatenate(rows) if rows else np.zeros((0, width), dtype=np.float32)

    def tags(self, windows: Sequence[np.ndarray], network: str, compute: Compute = run_here) -> np.ndarray:
        """All 50 tags of one network (`msd` or `mtt`), as its authors publish them: float32 in 0 to 1."""
        rows = [heard[network].logits.sigmoid().numpy() for _, heard in self._outputs(windows, compute)]
        return np.concatenate(rows) if rows else np.zeros((0, len(TAGS[network])), dtype=np.float32)

    def _outputs(self, windows: Sequence[np.ndarray], compute: Compute) -> Iterator[tuple[int, dict[str, Outputs]]]:
        """Place of the first window of each step, and each network's outputs for the step's windows."""
        if any(len(window) != len(windows[0]) for window in windows):
            raise ValueError("windows must be of equal length")
        if len(windows) and not len(windows[0]):
            raise InvalidInput("is too short to be heard", field="audio")
        for start in range(0, len(windows), STEP_WINDOWS):
            some = windows[start : start + STEP_WINDOWS]
            yield start, compute(lambda some=some: self._forward(some))

    def _forward(self, windows: Sequence[np.ndarray]) -> dict[str, Outputs]:
        """A window of exactly 3 s gives the 187 frames that the original takes of a file of that length."""
        frames = np.stack([log_mel(window) for window in windows])
        if frames.shape[1] == MOST_FRAMES + 1 and len(windows[0]) == 3 * RATE:
            frames = frames[:, :MOST_FRAMES]
        with torch.inference_mode():
            x = torch.from_numpy(frames)
            return {name: network(x) for name, network in self.networks.items()}


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most."""
    return checkpoint.parameters * 4


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Musicnn:
    """Reads a verified folder with the TensorFlow checkpoints of both networks.

    Raises `WeightsCorrupt` when they are not what this engine runs.
    """
    ready = prepare(checkpoint, folder, settings, progress)
    progress("reading weights", 0, memory_bytes(checkpoint))
    networks = {name: Network(load_file(ready / WEIGHTS.format(name))) for name in TAGS}
    progress("reading weights", memory_bytes(checkpoint), memory_bytes(checkpoint))
    return Musicnn(networks)


def prepare(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> Path:
    """Folder of safetensors: two thirds of the authors' files are the optimizer's state."""
    return converted(checkpoint, folder, settings, _to_safetensors, progress)


def _to_safetensors(source: Path, target: Path) -> None:
    for name in TAGS:
        try:
            weights = from_tensorflow(read_bundle(source / f"{name}.index", source / f"{name}.data"))
        except WeightsCorrupt as error:
            raise WeightsCorrupt(f"the checkpoint {name} is not musicnn: {error.message}") from error
        save_file(weights, target / WEIGHTS.format(name))
