"""Audio classification as the course teaches it: wav2vec2 with a new head, on the beginning of each recording.

`training.max_length` counts samples at the rate of the feature extractor: 16,000 are the course's one second.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune.data.split import Item
from finetune.recipe import Recipe
from finetune.tasks import quantized
from shared.media.recordings import Recording

BATCH = 16


def load(folder: Path, recipe: Recipe, labels: Sequence[str], quantization: Any) -> Any:
    import torch
    from transformers import AutoModelForAudioClassification

    torch.manual_seed(recipe.training.seed)  # the new head is drawn at random
    return AutoModelForAudioClassification.from_pretrained(
        folder,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        ignore_mismatched_sizes=True,  # the head of one that was fine-tuned before
        dtype=torch.float32,
        local_files_only=True,
        **quantized(quantization),
    )


def load_processor(folder: Path, recipe: Recipe) -> Any:
    from transformers import AutoFeatureExtractor

    return AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)


def encode(item: Item, processor: Any, recipe: Recipe, labels: Sequence[str]) -> dict[str, Any]:
    return {"input_values": _features(item, processor, recipe), "labels": labels.index(item.target)}


def collate(rows: Sequence[dict[str, Any]], processor: Any) -> dict[str, Any]:
    import torch

    sounds = [np.asarray(row["input_values"], np.float32) for row in rows]
    padded = np.zeros((len(sounds), max(map(len, sounds))), np.float32)
    for i, sound in enumerate(sounds):
        padded[i, : len(sound)] = sound
    return {"input_values": torch.from_numpy(padded), "labels": torch.tensor([row["labels"] for row in rows])}


def answers(
    model: Any, processor: Any, items: Sequence[Item], recipe: Recipe, labels: Sequence[str], tick: Any
) -> list[str]:
    import torch

    found: list[str] = []
    for start in range(0, len(items), BATCH):
        rows = [
            {"input_values": _features(item, processor, recipe), "labels": 0} for item in items[start : start + BATCH]
        ]
        with torch.inference_mode():
            logits = model(input_values=collate(rows, processor)["input_values"].to(model.device)).logits
        found += [str(labels[i]) for i in logits.argmax(-1).tolist()]
        tick(len(found), len(items))
    return found


def _features(item: Item, processor: Any, recipe: Recipe) -> np.ndarray:
    """The beginning of a recording as the model wants it, float32 (samples,). Raises `InvalidInput`."""
    rate, length = processor.sampling_rate, recipe.training.max_length
    with Recording(item.input, length / rate + 1, field="data") as recording:
        sound = np.concatenate(list(recording.mono(rate)))[:length]
    return np.asarray(processor(sound, sampling_rate=rate)["input_values"][0], np.float32)
