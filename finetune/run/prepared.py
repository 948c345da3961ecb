"""Everything that a run needs before its first step: rows proved apart and encoded, base and adapted model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from finetune.base import Base, find_base
from finetune.data.split import Parts, leaked, sizes
from finetune.recipe import Recipe
from finetune.rows import read_parts
from finetune.tasks import TrainingTask, task_of
from finetune.tasks.conversation import pack
from shared.errors import SuiteError
from shared.events import Progress
from shared.serving.runtime import Runtime


@dataclass
class Prepared:
    """Everything that is known before the first step."""

    recipe: Recipe
    base: Base
    task: TrainingTask
    processor: Any
    model: Any
    parts: Parts
    train_rows: list[dict[str, Any]]
    validation_rows: list[dict[str, Any]]
    facts: dict[str, Any]

    @property
    def labels(self) -> list[str]:
        return [] if self.recipe.generates else self.parts.labels


def prepare(recipe: Recipe, runtime: Runtime, progress: Progress) -> Prepared:
    """Base, rows and the adapted model. Raises `SuiteError`s that name the recipe's key at fault."""
    import torch

    task = task_of(recipe)
    parts = read_parts(recipe, runtime, progress)
    base = find_base(recipe.base, runtime, progress)
    progress("reading the base", 0, 0)
    labels = [] if recipe.generates else parts.labels
    processor = task.load_processor(base.folder, recipe)
    half = torch.bfloat16 if recipe.training.dtype == "bfloat16" else torch.float32
    model = task.load(base.folder, recipe, labels, recipe.method.quantization(half))
    torch.manual_seed(recipe.training.seed)
    model = recipe.method.adapt(model, recipe.task)
    progress("encoding rows", 0, 0)
    encoded = {
        name: [task.encode(item, processor, recipe, labels) for item in items]
        for name, items in (("train", parts.train), ("validation", parts.validation), ("test", parts.test))
        if name != "test" or recipe.task != "audio-classification"
    }
    facts = {"rows": sizes(parts), "leaked": _removed_leaks(encoded)}
    train_rows, validation_rows = encoded["train"], encoded["validation"]
    if recipe.training.packing:
        train_rows = pack(train_rows, recipe.training.max_length)
        validation_rows = pack(validation_rows, recipe.training.max_length)
    return Prepared(recipe, base, task, processor, model, parts, train_rows, validation_rows, facts)


def _removed_leaks(encoded: dict[str, list[dict[str, Any]]]) -> int:
    """Training rows that are, once cut, the very tokens of a held-out row are taken out; returns how many."""
    if "input_ids" not in encoded["train"][0]:
        return 0
    held = {tuple(row["input_ids"]) for name in ("validation", "test") for row in encoded.get(name, [])}
    before = len(encoded["train"])
    encoded["train"] = [row for row in encoded["train"] if tuple(row["input_ids"]) not in held]
    left = leaked((row["input_ids"] for row in encoded["train"]), held)
    if left:
        raise SuiteError(f"{left} held-out rows are in the training rows; this should not happen")
    return before - len(encoded["train"])
