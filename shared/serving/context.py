"""What a task function is given beside its request: the way to checkpoints, and who asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from shared.checkpoints.adapter_folder import Adapter, read_folder
from shared.checkpoints.adapters import Adapters, is_path, is_repository, refuse_unless_admin
from shared.checkpoints.catalog import Catalog, Checkpoint, HubSource, Pair, Task
from shared.engines import Kernel, all_of
from shared.errors import Cancelled, Forbidden, NeedsDownload, UnknownCheckpoint
from shared.events import Event, Loading, Queued, RunInfo
from shared.fetching import hub_adapters
from shared.fetching.hub_files import HubFiles
from shared.fetching.hub_link import HubLink
from shared.scheduling.admission import Admission
from shared.scheduling.cache import HEARTBEAT, ModelCache
from shared.scheduling.cache_entry import Borrowed, Loadable
from shared.scheduling.lane import Lane, Timing
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.engines.adapters.adapted import Adapted

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")


class Elsewhere(Protocol):
    """Runs a task function in another place than the thread that asks, with the same events and errors."""

    def __call__(self, name: str, task: TaskFunction, request: Any, context: Context) -> Iterator[Event]: ...


TaskFunction = Callable[[Any, "Context"], Iterator[Event]]


OWN_LABELS = "It knows its own labels alone, and gives one of them to any text."
"""What a classifier made of an adapter cannot do; the base's sentence is about the base's own way."""


@dataclass(frozen=True)
class Runtime:
    """The suite's one set of shared parts; made once in `shared.serving.runtime.start`."""

    settings: Settings
    catalog: Catalog
    cache: ModelCache
    lane: Lane
    admission: Admission
    hub: HubLink
    files: HubFiles
    adapters: Adapters
    elsewhere: Elsewhere | None = None
    """What computes in processes of its own instead of here (`shared.serving.zero_gpu`)."""

    def bytes_to_fetch(self, checkpoint: Checkpoint) -> int:
        """What a Hub must send before it can be loaded; 0 where it is here, or comes from a package."""
        here = not isinstance(checkpoint.source, HubSource) or self.files.on_disk(checkpoint)
        return 0 if here else checkpoint.download_bytes


@dataclass(frozen=True)
class Context:
    """One request: whose it is, and whether it was cancelled."""

    runtime: Runtime
    visitor: str = "local"
    """Key that tells visitors apart for fairness; says nothing about them."""
    admin: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)
    may_download: bool | None = None
    """True: the visitor agreed to a download. False: nothing is fetched, `NeedsDownload` says what would have to be.
    None: what the request names may be fetched and, in the hub profile, what its task takes by default."""

    @property
    def settings(self) -> Settings:
        return self.runtime.settings

    @property
    def catalog(self) -> Catalog:
        return self.runtime.catalog

    def borrow(self, model: str, task: Task, pair: Pair | None = None) -> Generator[Queued | Loading, None, Lease]:
        """Waits for a place in the queue and for the weights, yielding progress; returns the checkpoint on loan.

        Use: `with (yield from context.borrow(request.model, "translation")) as lease: ...`
        With an adapter (`checkpoint+adapter`) both are lent, each an entry of its own in the model cache.
        Raises `UnknownCheckpoint` at once, before waiting.
        """
        base, plus, name = model.strip().partition("+")
        adapter = (yield from self.adapter(name)) if plus else None
        if adapter is None:
            checkpoint = self.catalog.choose(model, task, pair)
        else:
            checkpoint = self.runtime.adapters.base_of(adapter, base, task, pair)
        agreed = self.may_download
        if agreed is None:
            agreed = bool(model.strip()) or self.settings.profile == "hub"
        if adapter is not None:
            self._ask_once(checkpoint, adapter, agreed)
        checkpoint = yield from self.on_disk(checkpoint, agreed=agreed)
        if adapter is not None:
            adapter = yield from self.fetched(adapter, agreed=agreed)
            self.runtime.cache.refuse_if_too_large_together(checkpoint, adapter)
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
            borrowed = yield from self._lent(checkpoint, stack)
            weights = (yield from self._lent(adapter, stack)) if adapter is not None else None
            adapted = self._put_on(checkpoint, borrowed, weights) if weights is not None else None
            loaded = time.perf_counter()
            if adapted is not None and adapted.kind:
                checkpoint = checkpoint.model_copy(update={"kind": adapted.kind, "limits": OWN_LABELS})
            times = admitted - asked, loaded - admitted
            return Lease(self, checkpoint, borrowed, *times, stack.pop_all(), adapted, pair or ("", ""))

    def _lent(self, wanted: Loadable, stack: ExitStack) -> Generator[Loading, None, Borrowed]:
        """Borrows from the model cache until the stack is closed."""
        borrowing = self.runtime.cache.borrow(wanted)
        stack.callback(borrowing.close)
        while True:
            self.check()
            try:
                progress = next(borrowing)
            except StopIteration as ready:
                return stack.enter_context(ready.value)
            yield progress

    def on_disk(self, checkpoint: Checkpoint, *, agreed: bool) -> Generator[Loading, None, Checkpoint]:
        """Brings the files of a checkpoint from the Hub; called before a place in the queue is taken.

        Returns the checkpoint with the commit that is on disk. Raises `NeedsDownload` where nobody agreed to fetch it.
        """
        if not isinstance(checkpoint.source, HubSource):
            return checkpoint
        if not self.runtime.files.on_disk(checkpoint):
            if not agreed:
                raise NeedsDownload(checkpoint.id, checkpoint.download_bytes)
            if checkpoint.kind != "adapter" and checkpoint not in self.catalog and not self.admin:
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

    # -- adapters --------------------------------------------------------------------------------

    def adapter(self, name: str) -> Generator[Loading, None, Adapter]:
        """The adapter that a request names: one that is offered, or for the admin any folder or repository.

        Raises `UnknownCheckpoint`, `WeightsCorrupt` where it cannot be used, `Forbidden` for what is the admin's.
        """
        adapters = self.runtime.adapters
        name = name.strip()
        if is_path(name):
            refuse_unless_admin(self.admin)
            return adapters.read(name)
        name, _, revision = name.partition("@")
        known = next((adapter for adapter in adapters if adapter.name == name), None)
        if known is not None and known.revision.startswith(revision):
            return known
        if not is_repository(name):
            known = adapters.by_name(name)
            raise UnknownCheckpoint(
                f"the adapter {name} is here at revision {known.revision}, not at the one asked for", field="model"
            )
        refuse_unless_admin(self.admin)
        yield Loading(name, "asking the Hub what it is", 0, 0)
        return adapters.add(hub_adapters.adapter_of(name, revision, self.runtime.hub, adapters.known))

    def fetched(self, adapter: Adapter, *, agreed: bool) -> Generator[Loading, None, Adapter]:
        """The adapter with its files on this machine. Raises as `on_disk` does."""
        if adapter.repository is None:
            return adapter
        there = yield from self.on_disk(adapter.repository, agreed=agreed)
        folder = self.runtime.files.folder(there)
        if adapter.path == folder:
            return adapter
        more = {"revision": there.revision, "repository": there}
        return self.runtime.adapters.add(read_folder(folder, self.runtime.adapters.known, adapter.name, **more))

    def _ask_once(self, checkpoint: Checkpoint, adapter: Adapter, agreed: bool) -> None:
        """Raises `NeedsDownload` for base and adapter together, rather than one after the other."""
        wanted = [c for c in (checkpoint, adapter.repository) if c is not None and isinstance(c.source, HubSource)]
        missing = [c for c in wanted if not self.runtime.files.on_disk(c)]
        if len(missing) > 1 and not agreed:
            raise NeedsDownload(f"{checkpoint.id} with {adapter.name}", sum(c.download_bytes for c in missing))

    def _put_on(self, checkpoint: Checkpoint, base: Borrowed, weights: Borrowed) -> Adapted:
        """Raises `WeightsCorrupt` where the adapter does not fit this base."""
        from shared.engines.adapters.adapted import put_on

        return put_on(checkpoint, base.engine, weights.engine)

    def check(self) -> None:
        """Raises `Cancelled` when the visitor has gone."""
        if self.cancel.is_set():
            raise Cancelled


@dataclass(frozen=True)
class LaneCompute:
    """One request's way to the compute lane (`shared.engines.Compute`)."""

    context: Context
    adapted: Adapted | None
    timing: Timing

    @property
    def owner(self) -> str:
        adapter = self.adapted.adapter if self.adapted else None
        return f"{self.context.visitor} {adapter.name}@{adapter.revision}" if adapter else self.context.visitor

    def __call__(self, step: Callable[[], T], /) -> T:
        if self.adapted is not None:
            step = self.adapted.active_during(step)
        return self.context.runtime.lane.run(self.context.visitor, step, self.context.cancel, self.timing)

    def begin(self, kernel: Kernel[P, R], piece: P, /) -> Future[R]:
        around = self.adapted.active_during if self.adapted else None
        # Visitors with the same adapter share a batch, and visitors with none.
        group = (kernel, id(self.adapted.deltas) if self.adapted else None)
        lane, visitor = self.context.runtime.lane, self.context.visitor
        return lane.begin(visitor, kernel, piece, self.context.cancel, self.timing, group=group, around=around)

    def together(self, kernel: Kernel[P, R], pieces: Sequence[P], /) -> list[R]:
        return all_of([self.begin(kernel, piece) for piece in pieces])


@dataclass
class Lease:
    """A checkpoint on loan to one request, and the account of what the request costs."""

    context: Context
    checkpoint: Checkpoint
    _borrowed: Borrowed
    _seconds_admission: float
    _seconds_loading: float
    _stack: ExitStack
    _adapted: Adapted | None = None
    pair: Pair = ("", "")
    """Source and target language of what it is to translate; empty for any other task."""
    _timing: Timing = field(default_factory=Timing)

    @property
    def engine(self) -> Any:
        """The engine, of the Protocol that `checkpoint.kind` names."""
        return self._borrowed.engine if self._adapted is None else self._adapted.engine

    @property
    def adapter(self) -> Adapter | None:
        """What is put on the checkpoint for this request. Engines compute with it by themselves."""
        return self._adapted.adapter if self._adapted else None

    @property
    def compute(self) -> LaneCompute:
        """The `Compute` that engines are given."""
        return LaneCompute(self.context, self._adapted, self._timing)

    def run_info(self, *, input_tokens: int = 0, new_tokens: int = 0, warning: str = "") -> RunInfo:
        """What this request cost so far."""
        running = self._timing.running
        return RunInfo(
            checkpoint=self.checkpoint.id,
            revision=self.checkpoint.revision,
            adapter=f"{self.adapter.name}@{self.adapter.revision}" if self.adapter else "",
            engine=f"{self.engine.name} + {self.adapter.method}" if self.adapter else self.engine.name,
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
