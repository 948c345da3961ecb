"""The second argument of a task function, beside its request: access to checkpoints, and the visitor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from shared.checkpoints.adapter_folder import Adapter, read_folder
from shared.checkpoints.adapters import is_path, is_repository
from shared.checkpoints.catalog import Catalog, Checkpoint, HubSource, Pair, Task
from shared.errors import Cancelled, Forbidden, NeedsDownload, UnknownCheckpoint
from shared.events import Loading, Queued
from shared.fetching import hub_adapters
from shared.scheduling.cache import HEARTBEAT
from shared.scheduling.cache_entry import Borrowed, Loadable
from shared.scheduling.lane import Timing
from shared.serving.lease import Lease
from shared.serving.runtime import Runtime
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.engines.adapters.adapted import Adapted

T = TypeVar("T")


OWN_LABELS = "It knows its own labels alone, and gives one of them to any text."
"""The limits of a classifier that an adapter adds; the sentence in the catalog is about the base alone."""


NAME_AN_ADAPTER = (
    "name a folder or a Hub repository as an adapter; choose one that is offered (the Models tab lists them)"
)
SIGN_IN = "do this; sign in with the admin token (SUITE_ADMIN_TOKEN, or the one printed at start)"


@dataclass(frozen=True)
class Context:
    """One request: its visitor and rights, and whether it was cancelled."""

    runtime: Runtime
    visitor: str = "local"
    """Key by which the queue is fair to visitors; it says nothing about them."""
    admin: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)
    may_download: bool | None = None
    """True: the visitor agreed to a download. False: nothing is fetched; `NeedsDownload` names the checkpoint.
    None: a checkpoint that the request names may be fetched and, in the hub profile, the default of its task."""

    @property
    def settings(self) -> Settings:
        return self.runtime.settings

    @property
    def catalog(self) -> Catalog:
        return self.runtime.catalog

    def borrow(self, model: str, task: Task, pair: Pair | None = None) -> Generator[Queued | Loading, None, Lease]:
        """Waits for a place in the queue and for the weights, yielding progress; returns a lease of the checkpoint.

        Use: `with (yield from context.borrow(request.model, "translation")) as lease: ...`
        With an adapter (`checkpoint+adapter`) both are borrowed, each an entry of its own in the model cache.
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
            self._ask_for_both(checkpoint, adapter, agreed)
        checkpoint = yield from self.ensure_on_disk(checkpoint, agreed=agreed)
        if adapter is not None:
            adapter = yield from self.fetched(adapter, agreed=agreed)
            self.runtime.cache.refuse_if_too_large_together(checkpoint, adapter)
        with ExitStack() as stack:
            begun = time.perf_counter()
            wait = stack.enter_context(self.runtime.admission.enter(self.visitor))
            # A wait that is over at once is not shown.
            place = wait(0)
            while place:
                self.check()
                yield Queued(place)
                place = wait(HEARTBEAT)
            admitted = time.perf_counter()
            borrowed = yield from self._borrow(checkpoint, stack)
            weights = (yield from self._borrow(adapter, stack)) if adapter is not None else None
            adapted = self._apply_adapter(checkpoint, borrowed, weights) if weights is not None else None
            loaded = time.perf_counter()
            if adapted is not None and adapted.kind:
                checkpoint = checkpoint.model_copy(update={"kind": adapted.kind, "limits": OWN_LABELS})
            times = admitted - begun, loaded - admitted
            lane = self.runtime.lane
            return Lease(
                lane,
                self.visitor,
                self.cancel,
                checkpoint,
                borrowed,
                *times,
                stack.pop_all(),
                adapted,
                pair or ("", ""),
            )

    def _borrow(self, wanted: Loadable, stack: ExitStack) -> Generator[Loading, None, Borrowed]:
        """Borrows from the model cache until the stack is closed."""
        return stack.enter_context((yield from self._unless_cancelled(self.runtime.cache.borrow(wanted))))

    def _unless_cancelled(self, waiting: Generator[Loading, None, T]) -> Generator[Loading, None, T]:
        """The same generator, with `check` before each step."""
        try:
            while True:
                self.check()
                try:
                    progress = next(waiting)
                except StopIteration as end:
                    return end.value
                yield progress
        finally:
            waiting.close()

    def ensure_on_disk(self, checkpoint: Checkpoint, *, agreed: bool) -> Generator[Loading, None, Checkpoint]:
        """Brings the files of a checkpoint from the Hub; called before a place in the queue is taken.

        Returns the checkpoint with the commit that is on disk. Raises `NeedsDownload` where nobody agreed to fetch it.
        """
        if not isinstance(checkpoint.source, HubSource):
            return checkpoint
        if not self.runtime.files.is_on_disk(checkpoint):
            if not agreed:
                raise NeedsDownload(checkpoint.id, checkpoint.download_bytes)
            if checkpoint.kind != "adapter" and checkpoint not in self.catalog and not self.admin:
                raise Forbidden(
                    f"only the admin may have another revision of {checkpoint.id} fetched than the catalog's; leave "
                    "out what follows @"
                )
        return (yield from self._unless_cancelled(self.runtime.files.ensure(checkpoint)))

    # -- adapters --------------------------------------------------------------------------------

    def adapter(self, name: str) -> Generator[Loading, None, Adapter]:
        """The adapter that a request names: one that is offered, or for the admin any folder or repository.

        Raises `UnknownCheckpoint`, `WeightsCorrupt` where it cannot be used, and `Forbidden` where only the admin may.
        """
        adapters = self.runtime.adapters
        name = name.strip()
        if is_path(name):
            self.require_admin(NAME_AN_ADAPTER)
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
        self.require_admin(NAME_AN_ADAPTER)
        yield Loading(name, "asking the Hub what it is", 0, 0)
        return adapters.add(hub_adapters.adapter_of(name, revision, self.runtime.hub, adapters.known))

    def fetched(self, adapter: Adapter, *, agreed: bool) -> Generator[Loading, None, Adapter]:
        """The adapter, after its files were downloaded where they were missing. Raises as `ensure_on_disk` does."""
        if adapter.repository is None:
            return adapter
        there = yield from self.ensure_on_disk(adapter.repository, agreed=agreed)
        folder = self.runtime.files.folder(there)
        if adapter.path == folder:
            return adapter
        more = {"revision": there.revision, "repository": there}
        return self.runtime.adapters.add(read_folder(folder, self.runtime.adapters.known, adapter.name, **more))

    def _ask_for_both(self, checkpoint: Checkpoint, adapter: Adapter, agreed: bool) -> None:
        """Raises `NeedsDownload` for base and adapter together, rather than one after the other."""
        wanted = [c for c in (checkpoint, adapter.repository) if c is not None and isinstance(c.source, HubSource)]
        missing = [c for c in wanted if not self.runtime.files.is_on_disk(c)]
        if len(missing) > 1 and not agreed:
            raise NeedsDownload(f"{checkpoint.id} with {adapter.name}", sum(c.download_bytes for c in missing))

    def _apply_adapter(self, checkpoint: Checkpoint, base: Borrowed, weights: Borrowed) -> Adapted:
        """Raises `WeightsCorrupt` where the adapter does not fit this base."""
        from shared.engines.adapters.adapted import apply_adapter

        return apply_adapter(checkpoint, base.engine, weights.engine)

    def compute(self, step: Callable[[], T]) -> T:
        """Runs one step without a checkpoint on the compute lane, in its turn between visitors.

        Keep a step short (150 ms or less): nothing else of another visitor is computed on its core meanwhile. Raises
        `Cancelled` when the visitor has gone.
        """
        return self.runtime.lane.run(self.visitor, step, self.cancel, Timing())

    def require_admin(self, what: str = SIGN_IN) -> None:
        """Raises `Forbidden` where the request is not the admin's; `what` goes on from "only the admin may …"."""
        if not self.admin:
            raise Forbidden(f"only the admin may {what}")

    def check(self) -> None:
        """Raises `Cancelled` when the visitor has gone."""
        if self.cancel.is_set():
            raise Cancelled
