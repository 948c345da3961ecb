"""What each task needs to be trained and judged: the model, the rows as tensors, the answers.

One module a task; `task_of` finds it. They share the protocol `TrainingTask`, no base class.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from finetune.data.split import Item
from finetune.recipe import Recipe

MODULES = {
    "text-classification": "text_classification",
    "conversational": "conversation",
    "summarization": "sequence_to_sequence",
    "translation": "sequence_to_sequence",
    "audio-classification": "audio_classification",
}

Tick = Callable[[int, int], None]
"""Called with the number of finished rows and the number of all rows."""


class TrainingTask(Protocol):
    """A module of this package."""

    def load(self, folder: Path, recipe: Recipe, labels: Sequence[str], quantization: Any) -> Any:
        """The base with the head that the task needs, weights in the recipe's dtype."""
        ...

    def load_processor(self, folder: Path, recipe: Recipe) -> Any:
        """Tokenizer or feature extractor."""
        ...

    def encode(self, item: Item, processor: Any, recipe: Recipe, labels: Sequence[str]) -> dict[str, Any]:
        """One row as the model's inputs, with `labels`; cut to the recipe's length."""
        ...

    def collate(self, rows: Sequence[dict[str, Any]], processor: Any) -> dict[str, Any]:
        """Rows of different length as one batch of tensors."""
        ...

    def answers(
        self, model: Any, processor: Any, items: Sequence[Item], recipe: Recipe, labels: Sequence[str], tick: Tick
    ) -> list[str]:
        """What the model answers to each input: a label, or a text."""
        ...


def quantized(config: Any) -> dict[str, Any]:
    """For `from_pretrained`: an explicit None would override the quantization in a checkpoint's own config."""
    return {} if config is None else {"quantization_config": config}


def task_of(recipe: Recipe) -> TrainingTask:
    module: Any = importlib.import_module(f"finetune.tasks.{MODULES[recipe.task]}")
    return module
