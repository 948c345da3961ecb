"""A recipe: everything that decides a training run, as one checked YAML file.

Unknown keys are refused, so a misspelt setting cannot be silently ignored, and what a recipe leaves out has a default
that `python -m finetune show RECIPE` prints. `extends: topics` takes everything from another recipe that the file does
not say itself.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from finetune.data.settings import Data, Strict
from finetune.methods import Method
from shared.errors import InvalidInput, SuiteError
from shared.yaml_text import read_yaml

RECIPES = Path(__file__).with_name("recipes")

TaskName = Literal["text-classification", "conversational", "summarization", "translation", "audio-classification"]
GENERATES: frozenset[str] = frozenset({"conversational", "summarization", "translation"})
"""Tasks whose answers are texts; the others' are labels."""


class Training(Strict):
    """Hyper-parameters, by the names transformers gives them where it has one."""

    learning_rate: float = Field(gt=0, le=1)
    batch_size: int = Field(default=16, ge=1, le=4096, description="Rows of one forward pass.")
    gradient_accumulation: int = Field(default=1, ge=1, le=4096, description="Forward passes for one step.")
    epochs: float = Field(default=3, gt=0, le=1000)
    max_steps: int = Field(default=0, ge=0, description="Stops after so many steps; 0 goes by the epochs.")
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    max_length: int = Field(default=256, ge=1, description="Tokens of a row (of audio: samples); longer ones are cut.")
    packing: bool = Field(default=False, description="Fill each row of `max_length` with several conversations.")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Of frozen weights and of arithmetic.")
    evaluations: int = Field(
        default=4, ge=1, le=1000, description="Times validation loss is measured and a checkpoint kept."
    )
    seed: int = Field(default=0, ge=0)


class Evaluation(Strict):
    rows: int = Field(default=500, ge=1, description="Held-out rows measured, at most.")
    shots: tuple[int, ...] = Field(default=(4, 8), description="Examples of the few-shot comparisons; of labels: each.")
    max_new_tokens: int = Field(default=48, ge=1, le=1024)
    metrics: tuple[str, ...] = Field(
        default=(), description="Beside the task's own: names or scripts of metrics of the library `evaluate`."
    )


class Publishing(Strict):
    """What the card says beside what was measured."""

    name: str = Field(
        default="",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description="Of the adapter in the suite; empty: the recipe's.",
    )
    licence: str = Field(min_length=1, description="SPDX name of the licence of what is published.")
    limits: str = Field(min_length=1, description="What it must not be used for, or does badly.")
    example: str = Field(default="", description="An input for people to try.")


class Recipe(Strict):
    """One training run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str = Field(min_length=1, max_length=80)
    summary: str
    base: str = Field(min_length=1, description="Catalog id of the checkpoint to adapt, or a Hub id.")
    task: TaskName
    data: Data
    instruction: str = Field(
        default="",
        description="Put before every input, in training and afterwards, or around it where it holds {text}; a "
        "classifier's base alone is asked with it.",
    )
    method: Annotated[Method, Field(discriminator="name")]
    training: Training
    evaluation: Evaluation = Evaluation()
    publishing: Publishing

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.training.packing and self.task != "conversational":
            raise ValueError("training.packing puts conversations together; it is for the task conversational alone")
        if self.task in GENERATES and self.method.name == "partial" and not self.method.top_layers:
            raise ValueError("method.top_layers: a language model has no head of its own to train; name some layers")
        if self.task == "audio-classification" and self.method.name == "qlora":
            raise ValueError("method.name: an adapter for sound is merged into its base, which four bits do not allow")
        return self

    @property
    def saves(self) -> Literal["adapter", "checkpoint"]:
        """What is kept. Speech models come without a head, so an adapter for sound is merged into base and new head."""
        return "checkpoint" if self.task == "audio-classification" else self.method.saves

    @property
    def generates(self) -> bool:
        return self.task in GENERATES

    @property
    def digest(self) -> str:
        """Eight hex digits that change with anything that changes the training."""
        decisive = self.model_dump(mode="json", include={"base", "task", "data", "instruction", "method", "training"})
        return hashlib.sha256(yaml.safe_dump(decisive).encode()).hexdigest()[:8]

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_recipe(name: str | Path, changes: list[str] | tuple[str, ...] = ()) -> Recipe:
    """The recipe in a YAML file, or the shipped one of this name; `changes` are `key.of.a.key=value`.

    Raises `InvalidInput`, which names the key at fault.
    """
    path = recipe_file(name)
    content = _content(path)
    for change in changes:
        _set(content, change)
    return check_recipe(content)


def _content(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a recipe says, with all that it `extends`, directly or not; `below` are the recipes that extend it."""
    if path in below:
        raise InvalidInput(f"{path.name} extends itself, by way of {below[-1].name}", field="extends")
    content = {"name": path.stem, **_read(path)}
    if "extends" not in content:
        return content
    parent = recipe_file(str(content.pop("extends")))
    return _merged(_content(parent, (*below, path)), content)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path.name} cannot be read as YAML: {error}", field="recipe") from None
    if not isinstance(content, dict):
        raise InvalidInput(f"{path.name} holds no recipe; see `python -m finetune show`", field="recipe")
    return content


def _merged(parent: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A recipe may extend another: what it says counts. A method and a source are replaced whole."""
    merged = dict(parent)
    for key, value in changes.items():
        whole = key in ("method", "source") or not isinstance(value, dict) or not isinstance(parent.get(key), dict)
        merged[key] = value if whole else _merged(parent[key], value)
    return merged


def check_recipe(content: dict[str, Any]) -> Recipe:
    """Raises `InvalidInput` with every key that is wrong."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        wrong = []
        for detail in error.errors(include_url=False, include_input=False):
            place = ".".join(str(part) for part in detail["loc"])
            message = detail["msg"].removeprefix("Value error, ")
            if detail["type"] == "extra_forbidden":
                message = "there is no such setting"
            wrong.append(f"{place}: {message}" if place else message)
        raise InvalidInput("; ".join(wrong), field="recipe") from None


def recipe_file(name: str | Path) -> Path:
    """A path, or the name of a shipped recipe."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = RECIPES / f"{path.stem if path.suffix in ('.yaml', '.yml') else path.name}.yaml"
    if path.parent == Path() and shipped.is_file():
        return shipped
    names = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
    raise SuiteError(f"there is no recipe {str(name)!r}; shipped ones are {names}", field="recipe")


def shipped_recipes() -> list[Recipe]:
    return [read_recipe(path) for path in sorted(RECIPES.glob("*.yaml"))]


def _set(content: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise InvalidInput(f"{change!r} is not of the form key=value, such as training.epochs=1", field="--set")
    *way, last = key.split(".")
    place = content
    for part in way:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise InvalidInput(f"{key}: {part} holds a value and no keys", field="--set")
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        said = f"{key}: {value[:100]!r} is no value that YAML knows; put it in quotes"
        raise InvalidInput(said, field="--set") from None
