"""The PyTorch engine for audio classifiers: wav2vec 2.0 (Baevski et al. 2020) with a head for labels, and its kin."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.checkpoints.catalog import Checkpoint
from shared.engines.compute import Compute, run_here
from shared.engines.pretrained.loading import LOCAL, WAY_OUT, labels_of, load_pretrained, nbytes_of
from shared.engines.pretrained.padded_batches import PADDING, PaddedBatches, ignores_padding
from shared.engines.protocols import NoCache
from shared.errors import InvalidInput, WeightsCorrupt
from shared.events import Progress
from shared.settings import Settings

log = logging.getLogger(__name__)

STEP_SECONDS = 10.0
"""Sound of one step: bounds how long a Stop, or another visitor, waits."""
FRAME_SECONDS = 0.02
"""Sound of one frame, of which such a model reads as many as another reads tokens."""


class TorchAudioClassifier(NoCache):
    """Windows of sound in; one logit a label out."""

    name = "torch-fp32"

    def __init__(self, model: Any, features: Any, labels: tuple[str, ...]) -> None:
        self.model = model
        self._features = features
        self.labels = labels
        self.sampling_rate: int = features.sampling_rate
        self.multi_label = model.config.problem_type == "multi_label_classification"
        self.nbytes = nbytes_of(model)
        self._pads = self._reads_padding()
        self.batches = PaddedBatches(
            self._forward,
            len,
            most=int(STEP_SECONDS * self.sampling_rate),
            padding=int(PADDING * FRAME_SECONDS * self.sampling_rate) if self._pads else 0,
        )

    def logits(self, windows: Sequence[np.ndarray], compute: Compute = run_here) -> np.ndarray:
        """float32 mono windows of equal length in [-1, 1] → float32, shape (windows, labels).

        Raises `InvalidInput` (field `audio`) for windows shorter than the model's first frame.
        """
        if not len(windows):
            return np.zeros((0, len(self.labels)), dtype=np.float32)
        samples = len(windows[0])
        if any(len(window) != samples for window in windows):
            raise ValueError("windows must be of equal length")
        frames = getattr(self.model, "_get_feat_extract_output_lengths", None)
        if not samples or (frames and int(frames(torch.tensor(samples))) < 1):
            raise InvalidInput(f"is too short to be heard: {samples / self.sampling_rate:.3f} seconds", field="audio")
        return np.stack(self.batches.results(windows, compute))

    def _forward(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Logits of each window, float32 (labels,)."""
        return list(self.model(**self._tensors(windows, self._pads)).logits.numpy())

    def _tensors(self, windows: Sequence[np.ndarray], pads: bool) -> Any:
        more = {"padding": True} if pads else {}
        return self._features(list(windows), sampling_rate=self.sampling_rate, return_tensors="pt", **more)

    def _reads_padding(self) -> bool:
        """Whether windows of unequal length may be computed together.

        Not where features are normalised over time ("group"): such models were trained without a mask, and padding
        counts as sound.
        """
        masked = getattr(self._features, "return_attention_mask", False)
        if getattr(self.model.config, "feat_extract_norm", "") != "layer" or not masked:
            return False
        wave = np.sin(np.arange(self.sampling_rate // 5, dtype=np.float32) / 10)
        short = wave[: 2 * len(wave) // 3]
        return ignores_padding(self.model, self._tensors([short], True), self._tensors([short, wave], True))


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most."""
    return checkpoint.parameters * 4


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> TorchAudioClassifier:
    """Reads a verified folder with safetensors, `config.json` and `preprocessor_config.json`.

    Raises as `load_pretrained` does; a checkpoint that was pre-trained only, and has no head, is refused there.
    """
    from transformers import AutoFeatureExtractor

    model = load_pretrained("AutoModelForAudioClassification", checkpoint, folder, progress)
    try:
        features = AutoFeatureExtractor.from_pretrained(folder, **LOCAL)
        if features.sampling_rate < 1:
            raise ValueError(f"sampling rate {features.sampling_rate}")
    except Exception as error:
        log.warning("transformers cannot read preprocessor_config.json of %s: %s", checkpoint.id, error)
        raise WeightsCorrupt(
            f"preprocessor_config.json of {checkpoint.id} is missing or damaged; it says how sound is given to the "
            f"model; {WAY_OUT}"
        ) from error
    return TorchAudioClassifier(model, features, labels_of(checkpoint, model.config))
