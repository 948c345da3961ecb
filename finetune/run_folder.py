"""The folder of a run: what the trainer writes there while it works, and what anyone can read of it meanwhile.

<runs>/<recipe>-<digest>/
    recipe.yaml      as it is run, with every default
    status.json      state, step, loss, seconds, memory: replaced whole, so it is never read half-written
    log.jsonl        one line a step
    stop             made by whoever wants the run to stop after its next step
    checkpoints/     of transformers' Trainer, for going on; removed at the end
    result/          what came out: it gets this name in one step when it is whole
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock, Timeout

from finetune import processes
from finetune.recipe import Recipe, read_recipe
from shared.atomic import atomic_file
from shared.errors import Busy
from shared.settings import Settings

State = Literal["waiting", "preparing", "training", "evaluating", "done", "stopped", "failed"]


EVALUATION = "evaluation.json"

ACTIVE_STATES: frozenset[str] = frozenset({"waiting", "preparing", "training", "evaluating"})


_LOCK_CHECK = threading.Lock()
"""Two that look at a lock at once would each take the other for its holder."""


@dataclass
class Status:
    """Where a run is. `steps` is 0 while it is not known."""

    state: State = "preparing"
    what: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    seconds: float = 0.0
    seconds_left: float | None = None
    peak_memory: int = 0
    """Bytes of this process."""
    trainable: int = 0
    parameters: int = 0
    error: str = ""
    pid: int = field(default_factory=os.getpid)
    updated: float = field(default_factory=time.time)


@dataclass
class Run:
    """One run's folder."""

    folder: Path

    @property
    def recipe(self) -> Recipe:
        return read_recipe(self.folder / "recipe.yaml")

    @property
    def result(self) -> Path:
        return self.folder / "result"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def stop_file(self) -> Path:
        return self.folder / "stop"

    def last_checkpoint(self) -> Path | None:
        """The newest that is whole: the Trainer writes its state last."""
        found = [path for path in self.checkpoints.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
        return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def status(self) -> Status:
        try:
            return Status(**json.loads((self.folder / "status.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Status(state="failed", error="its status cannot be read", pid=0)

    def alive(self) -> bool:
        """Whether a process works on it now. A killed one leaves its last words behind, and no lock."""
        lock = FileLock(self.folder / "lock")
        with _LOCK_CHECK:
            try:
                lock.acquire(timeout=0.05, poll_interval=0.01)  # another process may be looking
            except Timeout:
                return True
            lock.release()
            return False

    def evaluation(self) -> dict[str, Any] | None:
        """What `finetune.results.evaluation` wrote of the result; None where it was not measured."""
        try:
            return json.loads((self.result / EVALUATION).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def state(self) -> State | Literal["dead"]:
        """What its status says, unless the process that should be at it is gone: killed, or out of memory."""
        state, alive = self.status().state, self.alive()
        if state in ACTIVE_STATES and not alive:
            return "stopped" if self.stop_file.exists() else "dead"
        return "evaluating" if state == "done" and alive else state

    def write(self, status: Status) -> None:
        """Of several processes the first one's counts."""
        if not processes.is_main_process():
            return
        status.updated = time.time()
        if status.pid == os.getpid():
            status.peak_memory = max(status.peak_memory, peak_memory())
        write_atomically(self.folder / "status.json", json.dumps(asdict(status), indent=1))

    def update(self, **changes: Any) -> None:
        """Changes what its status says of these, and leaves the rest as it was."""
        status = self.status() if (self.folder / "status.json").is_file() else Status()
        self.write(replace(status, **changes))

    def log(self, entry: dict[str, Any]) -> None:
        if not processes.is_main_process():
            return
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def entries(self) -> list[dict[str, Any]]:
        """The steps so far; of a step that was done again after a resumption, the last."""
        found: dict[tuple[int, str], dict[str, Any]] = {}
        with contextlib.suppress(OSError):
            for line in (self.folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    found[entry["step"], "validation" if "validation_loss" in entry else "training"] = entry
        return sorted(found.values(), key=lambda entry: entry["step"])

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process works on a run; in that one, who holds it may take it again. Raises `Busy`.

        Removes an earlier request to stop.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock", is_singleton=True)
        again = lock.is_locked
        try:
            lock.acquire(timeout=1, poll_interval=0.01)  # who only looks lets go at once
        except Timeout:
            raise Busy(f"{self.folder.name} is being trained already; wait for it, or stop it") from None
        if not again:
            self.stop_file.unlink(missing_ok=True)
        try:
            yield
        finally:
            lock.release()


def runs_folder(settings: Settings) -> Path:
    return settings.cache_dir / "runs"


def run_of(recipe: Recipe, settings: Settings) -> Run:
    """The folder of this recipe as it is: any change of what decides the training is another run."""
    return Run(runs_folder(settings) / f"{recipe.name}-{recipe.digest}")


def all_runs(settings: Settings) -> list[Run]:
    """The newest first."""
    found = [path for path in runs_folder(settings).glob("*") if (path / "recipe.yaml").is_file()]
    return [Run(path) for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def write_atomically(path: Path, text: str) -> None:
    """Writes a file in one step."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")


def peak_memory() -> int:
    """Most bytes of memory this process has held so far."""
    with contextlib.suppress(ImportError):
        import resource
        import sys

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return psutil.Process().memory_info().rss


PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes")


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
