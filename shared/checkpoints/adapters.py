"""Adapters: which there are, and which one a request's `model` means (`checkpoint[@revision][+adapter]`).

Offered are those in `adapters/` of the cache folder and in `finetune/adapters/`, looked for whenever somebody asks, so
one that a recipe has just written is there at once; and those that the admin added, by a folder or by a Hub id.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from shared.checkpoints.adapter_folder import CONFIG, NAME, Adapter, read_folder
from shared.checkpoints.catalog import Catalog, Checkpoint, HubSource, Pair, Task
from shared.errors import SuiteError, UnknownCheckpoint, did_you_mean
from shared.settings import Settings

log = logging.getLogger(__name__)

COMMITTED = Path(__file__).resolve().parents[2] / "finetune" / "adapters"

SENTIMENTS = {"positive", "negative"}

ON_A_LANGUAGE_MODEL: dict[Task, tuple[Task, ...]] = {
    "text-generation": ("text-generation",),
    "conversational": ("conversational", "text-generation"),
    "summarization": ("summarization", "text-generation"),
    "text-classification": ("few-shot-classification", "zero-shot-classification", "text-generation"),
}
"""Task that an adapter was trained for → tasks whose menus offer it. A request may name it for what its base does."""


class Adapters:
    """The adapters of this machine, and the Hub's that were added. Holds no weights."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._roots = (settings.cache_dir / "adapters", COMMITTED)
        self._catalog = catalog
        self._added: dict[str, Adapter] = {}
        self._removed: set[str] = set()

    def __iter__(self) -> Iterator[Adapter]:
        return iter(self._found()[0].values())

    def problems(self) -> dict[str, str]:
        """What is wrong with folders that should be adapters and cannot be used, by name."""
        return self._found()[1]

    def _found(self) -> tuple[dict[str, Adapter], dict[str, str]]:
        known = self.known
        found: dict[str, Adapter] = {}
        problems: dict[str, str] = {}
        for root in self._roots:
            for config in sorted(root.glob(f"*/{CONFIG}")):
                name = config.parent.name
                # A folder whose name starts with a dot is being written.
                if name in found or name in self._removed or not NAME.fullmatch(name):
                    continue
                try:
                    found[name] = read_folder(config.parent, known)
                except SuiteError as error:
                    problems[name] = error.message
        return found | dict(self._added), problems

    @property
    def known(self) -> dict[str, Checkpoint]:
        """Checkpoints by id, those that are preferred here first."""
        first = sorted(self._catalog, key=lambda c: c.profile != self._catalog.preferred)
        return {checkpoint.id: checkpoint for checkpoint in first}

    # -- adding and removing -------------------------------------------------------------------

    def read(self, folder: str) -> Adapter:
        """The adapter in a folder of this machine, not added. Raises as `read_folder` does."""
        path = Path(folder).expanduser().resolve()
        if not NAME.fullmatch(path.name):
            raise UnknownCheckpoint(
                f"{path.name[:100]!r} cannot be an adapter's name; call the folder by letters, digits, . _ and -",
                field="model",
            )
        return read_folder(path, self.known)

    def add(self, adapter: Adapter) -> Adapter:
        """Offers it from now on. Raises `UnknownCheckpoint` where another folder's adapter has that name."""
        there = self._found()[0].get(adapter.name)
        if there is not None and there.path != adapter.path and there.repository is None:
            raise UnknownCheckpoint(
                f"there is an adapter {adapter.name} already, in {there.path}; give the folder another name",
                field="model",
            )
        self._removed.discard(adapter.name)
        self._added[adapter.name] = adapter
        return adapter

    def remove(self, name: str) -> Adapter:
        """No longer offers it, until it is added again or the suite is started anew. Its files stay."""
        adapter = self.by_name(name)
        self._added.pop(name, None)
        self._removed.add(name)
        return adapter

    # -- finding -------------------------------------------------------------------------------

    def by_name(self, name: str) -> Adapter:
        """Raises `UnknownCheckpoint`, which says what is wrong with a folder of that name, or what may be meant."""
        found, problems = self._found()
        if name in found:
            return found[name]
        if name in problems:
            raise UnknownCheckpoint(f"the adapter {name} cannot be used: {problems[name]}", field="model")
        meant = did_you_mean(name, list(found), cutoff=0.6)
        offered = f"{', '.join(found) or 'none'}{'.' if meant else ''}{meant}"
        raise UnknownCheckpoint(f"no adapter of the name {name[:100]!r}; there are: {offered}", field="model")

    def base_of(self, adapter: Adapter, base: str, task: Task, pair: Pair | None) -> Checkpoint:
        """The base that is named (`id` or `id@revision`, "" for the usual one), as far as the adapter fits it.

        Raises `UnknownCheckpoint` for another base, naming both, and for a task that it does not do.
        """
        name = base.partition("@")[0]
        known = self.known
        fitting = [known[one] for one in adapter.bases if one in known]
        if name and name not in adapter.bases and name in known:
            raise UnknownCheckpoint(
                f"{adapter.name} is an adapter for {fitting[0].id}, not for {name}; "
                f"name {fitting[0].id}+{adapter.name}",
                field="model",
            )
        tasks = self.able(adapter)
        if task not in tasks:
            raise UnknownCheckpoint(
                f"{adapter.name} on {fitting[0].id} does not do {task}; it does {', '.join(tasks)}", field="model"
            )
        if not name:
            base = self.usual_base(adapter).id
        return self._catalog.choose(base, task, pair)

    def able(self, adapter: Adapter) -> tuple[Task, ...]:
        """Tasks that a request may name it for."""
        if adapter.classifies:
            sentiment: tuple[Task, ...] = ("text-classification",)
            own = {label.lower() for label in adapter.labels} == SENTIMENTS
            return ("zero-shot-classification", "few-shot-classification", *(sentiment if own else ()))
        return self.known[adapter.bases[0]].tasks

    def for_task(self, task: Task) -> list[Adapter]:
        """Those whose training fits the task and whose base can be used here: what a menu offers."""
        offered = (adapter for adapter in self if task in self.offered(adapter))
        return [adapter for adapter in offered if not self._catalog.why_not(self.usual_base(adapter), False)]

    def offered(self, adapter: Adapter) -> tuple[Task, ...]:
        able = self.able(adapter)
        if adapter.classifies:
            return able
        return tuple(task for task in ON_A_LANGUAGE_MODEL.get(adapter.task, (adapter.task,)) if task in able)

    def usual_base(self, adapter: Adapter) -> Checkpoint:
        """Of the checkpoints it fits, the first that can be used here now; where none can, the first."""
        fitting = [self.known[one] for one in adapter.bases]
        return next((c for c in fitting if not self._catalog.why_not(c, False)), fitting[0])


def is_path(name: str) -> bool:
    """Whether what follows the `+` is a folder of the server's, which only the admin may name."""
    return name.startswith(("/", "./", "../", "~", ".\\", "..\\")) or bool(re.match(r"[A-Za-z]:[\\/]", name))


def is_repository(name: str) -> bool:
    """Whether it looks like a Hub id, `user/name`."""
    return name.count("/") == 1 and bool(NAME.fullmatch(name))


def as_repository(repo: str, commit: str, nbytes: int) -> Checkpoint:
    """A Hub adapter as what is fetched and counted: a repository at a commit, of so many bytes."""
    return Checkpoint(
        id=repo,
        kind="adapter",
        engine="adapters.deltas",
        profile="hub",
        tasks=(),
        languages=(),
        licence="not stated",
        authors=repo.partition("/")[0],
        parameters=max(1, nbytes // 4),
        context_window=1,
        revision=commit,
        limits="",
        source=HubSource(repo=repo),
    )
