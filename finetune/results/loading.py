"""Reads back what a run wrote: an adapter on its base, or a whole checkpoint."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.base import Base, find_base
from finetune.recipe import Recipe, check_recipe, recipe_file
from finetune.results.hub import pull
from finetune.run_folder import all_runs
from finetune.tasks import TrainingTask, task_of
from shared.checkpoints.adapters import is_repository
from shared.errors import SuiteError
from shared.serving.runtime import Runtime

TRAINING = "training.json"


@dataclass
class Trained:
    """A tuned model as plain transformers and peft give it."""

    folder: Path
    recipe: Recipe
    labels: list[str]
    task: TrainingTask
    processor: Any
    model: Any


def find_trained(name: str | Path, runtime: Runtime) -> Path:
    """The result's folder: given as such, the newest whole one of a recipe, or brought here from the Hub (user/name).

    Raises `SuiteError`.
    """
    for folder in (Path(name), Path(name) / "result"):
        if (folder / TRAINING).is_file():
            return folder
    for run in all_runs(runtime.settings):
        with contextlib.suppress(SuiteError):  # a recipe of another version, which this one cannot read
            if (run.result / TRAINING).is_file() and run.recipe.name == str(name):
                return run.result
    try:
        recipe_file(name)
    except SuiteError:
        if isinstance(name, str) and is_repository(name) and not Path(name).exists():
            runtime.hub.require()
            return pull(name, runtime.settings)
        raise SuiteError(
            f"{str(name)!r} is neither a folder that a run wrote nor the name of a recipe, nor a repository user/name",
            field="checkpoint",
        ) from None
    raise SuiteError(
        f"the recipe {name} has not been trained on this machine; run `python -m finetune {name}` first",
        field="checkpoint",
    )


def facts_of(folder: Path) -> dict[str, Any]:
    """What the run recorded. Raises `SuiteError`."""
    try:
        facts = json.loads((folder / TRAINING).read_text(encoding="utf-8"))
        whole = isinstance(facts["recipe"], dict) and isinstance(facts["labels"], list)
    except (OSError, ValueError, TypeError, LookupError):
        whole, facts = False, {}
    if not whole:
        raise SuiteError(f"{folder.name} holds no readable {TRAINING}, so no run wrote it", field="checkpoint")
    return facts


def base_of(facts: dict[str, Any], runtime: Runtime) -> Base:
    """The base of a run, at the revision it was trained on."""
    recipe = check_recipe(facts["recipe"])
    return find_base(recipe.base, runtime, lambda *_: None, facts.get("base", {}).get("revision") or "")


def load_trained(name: str | Path, like: Recipe | None, runtime: Runtime) -> Trained:
    """The tuned model. `like` is the recipe that wants it as a teacher: its rows must fit."""
    folder = find_trained(name, runtime)
    facts = facts_of(folder)
    recipe = check_recipe(facts["recipe"])
    if like is not None and like.task != recipe.task:
        raise SuiteError(f"{name} was trained for {recipe.task}, not for {like.task}", field="method.teacher")
    task = task_of(recipe)
    labels = list(facts["labels"])
    processor = task.load_processor(folder, recipe)
    if recipe.saves == "checkpoint":
        return Trained(folder, recipe, labels, task, processor, task.load(folder, recipe, labels, None).eval())
    import peft

    base = base_of(facts, runtime)
    model = task.load(base.folder, recipe, labels, None)
    adapted = peft.PeftModel.from_pretrained(model, str(folder)).eval()
    return Trained(folder, recipe, labels, task, processor, adapted)


def plain(model: Any) -> Any:
    """The model of transformers, without peft's around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def merge(model: Any) -> Any:
    """The base with the adapter in its weights: added in float32, since bfloat16 would round small updates away."""
    if not hasattr(model, "merge_and_unload"):
        return model
    dtype = plain(model).dtype
    return model.float().merge_and_unload(safe_merge=True).to(dtype)
