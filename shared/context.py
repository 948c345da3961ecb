"""What a task function is given beside its request: the way to checkpoints, and who asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from shared.cache import HEARTBEAT, Borrowed, ModelCache
from shared.catalog import Catalog, Checkpoint, HubSource, Task
from shared.errors import Cancelled, Forbidden, NeedsDownload
from shared.events import Event, Loading, Queued, RunInfo
from shared.hub_files import HubFiles
from shared.hub_link import HubLink
from shared.lane import Admission, Lane, Timing
from shared.settings import Settings

T = TypeVar("T")


class Elsewhere(Protocol):
    """Runs a task function in another place than the thread that asks, with the same events and errors."""

    def __call__(self, name: str, task: TaskFunction, request: Any, context: Context) -> Iterator[Event]: ...


TaskFunction = Callable[[Any, "Context"], Iterator[Event]]


@dataclass(frozen=True)
class Runtime:
    """The suite's one set of shared parts; made once in `shared.runtime.start`."""

    settings: Settings
    catalog: Catalog
    cache: ModelCache
    lane: Lane
    admission: Admission
    hub: HubLink
    files: HubFiles
    elsewhere: Elsewhere | None = None
    """What computes in processes of its own instead of here (`shared.zero_gpu`)."""


@dataclass(frozen=True)
class Context:
    """One request: whose it is, and whether it was cancelled."""

    runtime: Runtime
    visitor: str = "local"
    """Key that tells visitors apart for fairness; says nothing about them."""
    admin: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)
    may_download: bool | None = None
    """True: the visitor agreed to a download. False: ask first. None: what the request names may be fetched."""

    @property
    def settings(self) -> Settings:
        return self.runtime.settings

    @property
    def catalog(self) -> Catalog:
        return self.runtime.catalog

    def borrow(
        self, model: str, task: Task, pair: tuple[str, str] | None = None
    ) -> Generator[Queued | Loading, None, Lease]:
        """Waits for a place in the queue and for the weights, yielding progress; returns the checkpoint on loan.

        Use: `with (yield from context.borrow(request.model, "translation")) as lease: ...`
        Raises `UnknownCheckpoint` at once, before waiting.
        """
        checkpoint = self.catalog.choose(model, task, pair)
        named = self.may_download is None and bool(model.strip())
        agreed = self.may_download or named or self.settings.profile == "hub"
        checkpoint = yield from self.on_disk(checkpoint, agreed=agreed)
        with ExitStack() as stack:
            asked = time.perf_counter()
            wait = stack.enter_context(self.runtime.admission.enter(self.visitor))
            # Nothing is shown of a wait that is over before anyone could read it.
            place = wait(0)
            while place:
                self.check()
                yield Queued(place)
                place = wait(HEARTBEAT)
            admitted = time.perf_counter()
            borrowing = self.runtime.cache.borrow(checkpoint)
            stack.callback(borrowing.close)
            while True:
                self.check()
                try:
                    progress = next(borrowing)
                except StopIteration as ready:
                    borrowed: Borrowed = stack.enter_context(ready.value)
                    break
                yield progress
            loaded = time.perf_counter()
            return Lease(self, checkpoint, borrowed, admitted - asked, loaded - admitted, stack.pop_all())

    def on_disk(self, checkpoint: Checkpoint, *, agreed: bool) -> Generator[Loading, None, Checkpoint]:
        """Brings the files of a checkpoint from the Hub; called before a place in the queue is taken.

        Returns the checkpoint with the commit that is on disk. Raises `NeedsDownload` where nobody agreed to fetch it.
        """
        if not isinstance(checkpoint.source, HubSource):
            return checkpoint
        if not self.runtime.files.on_disk(checkpoint):
            if not agreed:
                raise NeedsDownload(checkpoint.id, checkpoint.download_bytes)
            if checkpoint not in self.catalog and not self.admin:
                raise Forbidden(
                    f"only the admin may have another revision of {checkpoint.id} fetched than the catalog's; leave "
                    "out what follows @"
                )
        fetching = self.runtime.files.ensure(checkpoint)
        try:
            while True:
                self.check()
                try:
                    progress = next(fetching)
                except StopIteration as ready:
                    return ready.value
                yield progress
        finally:
            fetching.close()

    def check(self) -> None:
        """Raises `Cancelled` when the visitor has gone."""
        if self.cancel.is_set():
            raise Cancelled


@dataclass
class Lease:
    """A checkpoint on loan to one request, and the account of what the request costs."""

    context: Context
    checkpoint: Checkpoint
    _borrowed: Borrowed
    _seconds_admission: float
    _seconds_loading: float
    _stack: ExitStack
    _timing: Timing = field(default_factory=Timing)

    @property
    def engine(self) -> Any:
        """The engine, of the Protocol that `checkpoint.kind` names."""
        return self._borrowed.engine

    def compute(self, step: Callable[[], T], /) -> T:
        """Runs one step on the compute lane; the `Compute` that engines are given."""
        return self.context.runtime.lane.run(self.context.visitor, step, self.context.cancel, self._timing)

    def run_info(self, *, input_tokens: int = 0, new_tokens: int = 0, warning: str = "") -> RunInfo:
        """What this request cost so far."""
        running = self._timing.running
        return RunInfo(
            checkpoint=self.checkpoint.id,
            revision=self.checkpoint.revision,
            engine=self.engine.name,
            limits=self.checkpoint.limits,
            warning=warning,
            seconds_queued=round(self._seconds_admission + self._timing.queued, 4),
            seconds_loading=round(self._seconds_loading, 4),
            seconds_running=round(running, 4),
            input_tokens=input_tokens,
            new_tokens=new_tokens,
            tokens_per_second=round(new_tokens / running, 1) if new_tokens and running else None,
            loaded=self._borrowed.loaded,
        )

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
