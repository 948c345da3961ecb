"""How long a run will take and how much memory it needs, from a few of its own steps before it starts."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune import processes
from finetune.run_folder import duration, peak_memory

if TYPE_CHECKING:
    from finetune.run.prepared import Prepared

PROBES = 2
"""Batches that are timed; the first pass of all is slower and is not."""
ADAM_BYTES = 8
"""Two running means in float32 for each trainable weight."""


@dataclass(frozen=True)
class Estimate:
    """What is known before the first step. Times are of this machine as busy as it was."""

    rows: int
    steps: int
    seconds_per_step: float
    seconds: float
    memory: int
    """Bytes of the process at its most."""
    trainable: int
    parameters: int

    def summary(self) -> str:
        share = 100 * self.trainable / max(self.parameters, 1)
        return (
            f"{self.steps:,} steps over {self.rows:,} rows, about {duration(self.seconds)} "
            f"({self.seconds_per_step:.2f} s a step); {self.trainable:,} of {self.parameters:,} parameters learn "
            f"({share:.2f} %); about {self.memory / 1e9:.1f} GB of memory"
        )


def estimate(prepared: Prepared) -> Estimate:
    """Runs a few batches forward and backward, and leaves model and random numbers as they were."""
    import torch

    settings, model = prepared.recipe.training, prepared.model
    chance = torch.get_rng_state()
    model.train()
    rows = sorted(prepared.train_rows, key=_size)
    middle = rows[len(rows) // 2 :][: settings.batch_size] or rows
    longest = rows[-settings.batch_size :]
    _step(prepared, middle)  # warms up
    began = time.perf_counter()
    for _ in range(PROBES):
        _step(prepared, middle)
    seconds = (time.perf_counter() - began) / PROBES
    _step(prepared, longest)  # the most memory a batch can take
    model.zero_grad(set_to_none=True)
    torch.set_rng_state(chance)
    # Counted where NF4 packs two weights into a byte, by what peft says of it.
    parameters = sum(_elements(weight) for weight in model.parameters())
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    steps = steps_of(prepared)
    per_step = seconds * settings.gradient_accumulation
    return Estimate(
        rows=len(prepared.train_rows),
        steps=steps,
        seconds_per_step=round(per_step, 3),
        seconds=round(per_step * steps, 1),
        memory=peak_memory() + ADAM_BYTES * trainable,
        trainable=trainable,
        parameters=parameters,
    )


def steps_of(prepared: Prepared) -> int:
    settings = prepared.recipe.training
    if settings.max_steps:
        return settings.max_steps
    batches = math.ceil(math.ceil(len(prepared.train_rows) / settings.batch_size) / processes.num_processes())
    per_epoch = max(1, math.ceil(batches / settings.gradient_accumulation))
    return math.ceil(per_epoch * settings.epochs)


def _step(prepared: Prepared, rows: list[dict[str, Any]]) -> None:
    import torch

    model = prepared.model
    batch = prepared.task.collate(rows, prepared.processor)
    batch = {key: value.to(model.device) if hasattr(value, "to") else value for key, value in batch.items()}
    half = prepared.recipe.training.dtype == "bfloat16"
    with torch.autocast(model.device.type, torch.bfloat16, enabled=half):
        loss = model(**batch).loss
    loss.backward()


def _size(row: dict[str, Any]) -> int:
    return len(row["input_ids"] if "input_ids" in row else row["input_values"])


def _elements(weight: Any) -> int:
    return 2 * weight.numel() if type(weight).__name__ == "Params4bit" else weight.numel()
