"""One training run, from a recipe to a folder: read from the top, this is what happens.

transformers' Trainer does the steps. Ours is what is around them: rows that are proved apart, an estimate before it
starts, progress anyone can read, a stop and a resumption at any step, and a result that appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune import processes
from finetune.methods import Distillation
from finetune.recipe import Recipe
from finetune.results.loading import load_trained, merge
from finetune.run.estimate import Estimate, estimate
from finetune.run.failures import errors_in_words
from finetune.run.prepared import Prepared, prepare
from finetune.run.watch import Stopped, Watch
from finetune.run_folder import PACKAGES, Run, Status, write_atomically, write_json
from shared.atomic import atomic_folder
from shared.events import Progress
from shared.serving.runtime import Runtime


def train(
    recipe: Recipe,
    run: Run,
    runtime: Runtime,
    *,
    resume: bool = False,
    progress: Progress = lambda what, done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Prepared, Estimate]:
    """Trains into `run`. On return `run.result` is whole.

    Raises `Stopped` after a stop, at which the run can be resumed, and `SuiteError` for whatever went wrong, which
    `run.status()` then tells too.
    """
    with run.locked() if processes.is_main_process() else contextlib.nullcontext():
        if processes.is_main_process():
            _clear(recipe, run, resume=resume)
        processes.wait_for_everyone()
        checkpoint = run.last_checkpoint() if resume else None
        watch = Watch(run, progress)
        try:
            with errors_in_words(recipe, run.folder):
                prepared = prepare(recipe, runtime, watch.preparing)
                expected = estimate(prepared)
                watch.expect(prepared.model, expected)
                say(expected.summary())
                trainer = make_trainer(prepared, run, watch, expected.steps, runtime)
                _train(trainer, checkpoint, watch)
                if processes.is_main_process():
                    save_result(prepared, run, watch.status, expected)
                processes.destroy()
                watch.done()
                return prepared, expected
        except Stopped:
            watch.end("stopped", "")
            raise
        except Exception as error:
            watch.end("failed", str(error) or type(error).__name__)
            raise


def _clear(recipe: Recipe, run: Run, *, resume: bool) -> None:
    if not resume:
        for old in (run.checkpoints, run.result):
            shutil.rmtree(old, ignore_errors=True)
        (run.folder / "log.jsonl").unlink(missing_ok=True)
    write_atomically(run.folder / "recipe.yaml", recipe.to_yaml())


def make_trainer(prepared: Prepared, run: Run, watch: Watch, steps: int, runtime: Runtime) -> Any:
    import torch
    from transformers import Trainer, TrainingArguments

    recipe, settings = prepared.recipe, prepared.recipe.training
    every = max(1, steps // settings.evaluations)
    validates = bool(prepared.validation_rows)
    arguments = TrainingArguments(
        output_dir=str(run.checkpoints),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        warmup_steps=int(settings.warmup_ratio * steps),
        weight_decay=settings.weight_decay,
        lr_scheduler_type="linear",
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is no number must be seen
        eval_strategy="steps" if validates else "no",
        eval_steps=every if validates else None,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=validates,
        metric_for_best_model="eval_loss" if validates else None,
        greater_is_better=False if validates else None,
        prediction_loss_only=recipe.generates,
        use_cpu=not torch.cuda.is_available(),
        bf16=settings.dtype == "bfloat16",
        seed=settings.seed,
        data_seed=settings.seed,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
    )
    import datasets

    def table(rows: list[dict[str, Any]]) -> Any:
        return datasets.Dataset.from_list(rows) if rows else None

    kind = _distilling(prepared, runtime) if isinstance(recipe.method, Distillation) else Trainer
    trainer = kind(
        model=prepared.model,
        args=arguments,
        data_collator=lambda rows: prepared.task.collate(rows, prepared.processor),
        train_dataset=table(prepared.train_rows),
        eval_dataset=table(prepared.validation_rows),
        compute_metrics=None if recipe.generates else _accuracy,
        callbacks=[watch.callback()],
    )
    # A model whose forward takes any keyword is believed to divide its loss by the tokens of the whole step. Those with
    # a head, T5 and Marian do not, and their loss would count once for each accumulated batch and each process.
    trainer.model_accepts_loss_kwargs = recipe.task == "conversational" and kind is Trainer
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return trainer


def _accuracy(predicted: Any) -> dict[str, float]:
    """Share of the validation rows whose likeliest label is right. Logits: rows x labels."""
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def _distilling(prepared: Prepared, runtime: Runtime) -> Any:
    """A Trainer whose loss also asks the teacher."""
    from transformers import Trainer

    method: Any = prepared.recipe.method
    teacher = load_trained(method.teacher, prepared.recipe, runtime).model.eval().requires_grad_(False)

    class DistillationTrainer(Trainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            outputs = model(**inputs)
            loss = method.loss(teacher, outputs.logits, inputs, outputs.loss)
            return (loss, outputs) if return_outputs else loss

    return DistillationTrainer


def _train(trainer: Any, checkpoint: Path | None, watch: Watch) -> None:
    watch.start()
    with watch.stopped_by_signals():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    watch.raise_if_ended_early()


def save_result(prepared: Prepared, run: Run, status: Status, expected: Estimate) -> None:
    """Writes `run.result` beside its final place and renames it: there is no half of it."""
    recipe = prepared.recipe
    with atomic_folder(run.result) as part:
        if recipe.saves != recipe.method.saves:
            prepared.model = merge(prepared.model)
        model = prepared.model
        if recipe.saves == "adapter":
            for config in model.peft_config.values():
                config.base_model_name_or_path = prepared.base.published_as
                config.inference_mode = True
            # Left to itself, peft asks a Hub whether the vocabulary was changed.
            model.save_pretrained(part, safe_serialization=True, save_embedding_layers=False)
            (part / "README.md").unlink(missing_ok=True)
        else:
            model.save_pretrained(part, safe_serialization=True)
        prepared.processor.save_pretrained(part)
        write_json(part / "suite_adapter.json", suite_entry(prepared))
        write_json(
            part / "training.json",
            {
                "recipe": recipe.model_dump(mode="json"),
                "base": {"checkpoint": prepared.base.checkpoint.id, "revision": prepared.base.checkpoint.revision},
                "labels": prepared.labels,
                **prepared.facts,
                "status": {k: v for k, v in asdict(status).items() if k not in ("pid", "updated", "error", "what")},
                "estimate": asdict(expected),
                "versions": {name: version(name) for name in PACKAGES},
                "cores": os.cpu_count(),
            },
        )
        (part / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        write_json(part / "loss.json", run.entries())
        for root, _, files in os.walk(part):
            for name in files:
                with (Path(root) / name).open("rb") as file:
                    os.fsync(file.fileno())
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def suite_entry(prepared: Prepared) -> dict[str, Any]:
    """What the suite needs to know of an adapter (`shared.checkpoints.adapters`)."""
    recipe = prepared.recipe
    return {
        "title": recipe.title,
        "checkpoint": prepared.base.checkpoint.id,
        "task": recipe.task,
        "labels": prepared.labels or None,
        "instruction": recipe.instruction or None,
        "example": recipe.publishing.example or None,
    }
