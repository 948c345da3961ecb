"""The PyTorch engine for sequence classifiers: sentiment (DistilBERT SST-2), entailment (RoBERTa MNLI) and so on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.checkpoints.catalog import Checkpoint
from shared.engines.compute import Compute, run_here
from shared.engines.pretrained.inputs import EncoderInputs
from shared.engines.pretrained.loading import labels_of, load_text_model, nbytes_of
from shared.engines.pretrained.padded_batches import text_batches
from shared.engines.protocols import NoCache
from shared.events import Progress
from shared.settings import Settings


class TorchSequenceClassifier(NoCache):
    """A text, or a pair of texts, in; one logit a label out."""

    name = "torch-fp32"

    def __init__(self, model: Any, tokenizer: Any, labels: tuple[str, ...], max_tokens: int) -> None:
        self.model = model
        self.labels = labels
        self.max_tokens = max_tokens
        self.nbytes = nbytes_of(model)
        self._inputs = EncoderInputs(model, tokenizer, max_tokens)
        self.batches = text_batches(model, self._inputs, self._forward, lambda encoding: len(encoding.ids))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens left out."""
        return self._inputs.count_tokens(texts)

    def logits(self, inputs: Sequence[str | tuple[str, str]], compute: Compute = run_here) -> np.ndarray:
        """float32, shape (inputs, labels). Raises `InvalidInput` for a pair whose second text fills the window."""
        rows = self.batches.results(self._inputs.fitting(inputs), compute)
        return np.stack(rows) if rows else np.zeros((0, len(self.labels)), dtype=np.float32)

    def _forward(self, encodings: Sequence[Any]) -> list[np.ndarray]:
        """Logits of each encoding, float32 (labels,)."""
        return list(self.model(**self._inputs.tensors(encodings)).logits.numpy())


def memory_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of weights in memory, at most."""
    return checkpoint.parameters * 4


def load(checkpoint: Checkpoint, folder: Path, settings: Settings, progress: Progress) -> TorchSequenceClassifier:
    """Reads a verified folder. Raises as `load_text_model` does."""
    model, tokenizer, max_tokens = load_text_model("AutoModelForSequenceClassification", checkpoint, folder, progress)
    return TorchSequenceClassifier(model, tokenizer, labels_of(checkpoint, model.config), max_tokens)
