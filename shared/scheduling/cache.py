"""The model cache: the one place that loads, shares, evicts and reports checkpoints.

Promises, each of them a property test in `tests/shared/scheduling/test_cache.py`:
one load per checkpoint however many ask at once, and all who wait see its progress; never more
bytes than the budget, those that engines keep for later included, which go before weights do;
never an eviction of what is borrowed or pinned; a checkpoint that cannot fit is refused before a
byte of it is read; a failed load leaves nothing behind.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from shared.engines.protocols import Engine
from shared.errors import Busy, MemoryRefused
from shared.events import Loading, Progress, result_of
from shared.scheduling.cache_entry import Borrowed, Entry, Loadable, megabytes, share
from shared.scheduling.freed_memory import release_freed_memory, trim_heap

log = logging.getLogger(__name__)

HEARTBEAT = 0.2
"""Seconds between two progress events to a waiter; also how soon a waiter notices that it was cancelled."""


class ModelCache:
    """Checkpoints in memory, within `budget` bytes.

    `load(checkpoint, progress)` reads one and returns its engine; `memory_bytes(checkpoint)` says
    beforehand how many bytes it will hold at most. Both are given, so that this class knows no engine.
    """

    def __init__(
        self,
        budget: int,
        load: Callable[[Any, Progress], Engine],
        memory_bytes: Callable[[Any], int],
        *,
        idle_seconds: float = 0.0,
        wait_seconds: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = budget
        self._load = load
        self._memory_bytes = memory_bytes
        self._idle_seconds = idle_seconds
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._changed = threading.Condition()
        self._entries: dict[str, Entry] = {}
        self._hits = self._misses = self._evictions = 0
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_now_and_then, name="idle-unload", daemon=True)
        if idle_seconds:
            self._sweeper.start()

    # -- borrowing -----------------------------------------------------------------------------

    def borrow(self, checkpoint: Loadable) -> Generator[Loading, None, Borrowed]:
        """Yields progress until the checkpoint is in memory, then returns it on loan.

        Closing the generator while it waits leaves the queue; the load goes on for the others.
        Raises `MemoryRefused` when it cannot fit, `Busy` when the memory stays in use by others for
        `wait_seconds`, and whatever the load raised.
        """
        deadline = self._clock() + self._wait_seconds
        need = self._memory_bytes(checkpoint)
        entry, loaded = self._join(checkpoint, need)
        while entry is None:
            if self._clock() > deadline:
                raise Busy(f"the memory that {checkpoint.id} needs is in use by other requests; try again in a minute")
            yield Loading(checkpoint.id, "waiting for memory that others are using", 0, 0)
            with self._changed:
                self._changed.wait(HEARTBEAT)
            entry, loaded = self._join(checkpoint, need)
        try:
            while entry.engine is None:
                if entry.error is not None:
                    raise entry.error.with_traceback(None)
                yield Loading(checkpoint.id, *entry.progress)
                with self._changed:
                    self._changed.wait_for(lambda: entry.engine or entry.error, HEARTBEAT)
        except BaseException:
            self._give_back(entry)
            raise
        return Borrowed(entry, entry.engine, loaded, self._give_back)

    def hold(self, checkpoint: Loadable) -> Borrowed:
        """Like `borrow`, for callers with nothing to show meanwhile."""
        return result_of(self.borrow(checkpoint))

    def _join(self, checkpoint: Loadable, need: int) -> tuple[Entry | None, bool]:
        """Counts the caller among the borrowers of the entry, which it starts to load where there is none.

        `(None, False)` when others must give memory back first.
        """
        with self._changed:
            entry = self._entries.get(checkpoint.folder)
            if entry is not None:
                loaded = entry.engine is not None
                self._hits += loaded
                entry.hits += loaded
            else:
                loaded = False
                self._refuse_if_hopeless(checkpoint, need)
                if not self._make_room(need):
                    return None, False
                self._misses += 1
                entry = self._entries[checkpoint.folder] = Entry(checkpoint, need)
                self._share_the_rest()
                threading.Thread(target=self._fill, args=(entry,), name=f"load-{checkpoint.id}", daemon=True).start()
            entry.borrows += 1
            return entry, loaded

    def _give_back(self, entry: Entry) -> None:
        with self._changed:
            entry.borrows -= 1
            entry.last_used = self._clock()
            self._changed.notify_all()

    # -- loading -------------------------------------------------------------------------------

    def _fill(self, entry: Entry) -> None:
        """Runs in a thread of its own, so that a visitor who leaves does not end the load for the others."""

        def progress(what: str, done: int, total: int) -> None:
            entry.progress = (what, done, total)

        begun = self._clock()
        engine: Engine | None = None
        try:
            engine = self._load(entry.checkpoint, progress)
            with self._changed:
                if not self._make_room(engine.nbytes - entry.nbytes):
                    raise MemoryRefused(
                        f"{entry.checkpoint.id} turned out to need {megabytes(engine.nbytes)}, more than its share of "
                        f"the {megabytes(self.budget)} budget (SUITE_MEMORY_BUDGET) that is free now"
                    )
                entry.nbytes = engine.nbytes
                entry.loads_seconds = self._clock() - begun
                entry.last_used = self._clock()
                entry.engine = engine
                self._share_the_rest()
                self._changed.notify_all()
        except BaseException as error:
            engine = None
            with self._changed:
                entry.error = error
                self._entries.pop(entry.checkpoint.folder, None)
                self._share_the_rest()
                self._changed.notify_all()
            release_freed_memory()
            log.warning("loading %s failed: %s", entry.checkpoint.id, error)

    def refuse_if_too_large(self, checkpoint: Loadable) -> None:
        """Raises `MemoryRefused` for a checkpoint that the budget could not hold beside what is pinned."""
        with self._changed:
            self._refuse_if_hopeless(checkpoint, self._memory_bytes(checkpoint))

    def refuse_if_too_large_together(self, base: Loadable, adapter: Loadable) -> None:
        """The same of two that a request needs at once. Without it, the second would wait for what the first holds."""
        with self._changed:
            both = [self._entries.get(one.folder) for one in (base, adapter)]
            need = self._memory_bytes(base) + self._memory_bytes(adapter)
            need -= sum(entry.nbytes for entry in both if entry and entry.pinned)
            self._refuse_if_hopeless(adapter, max(0, need), f"{adapter.id}, with its base, needs")

    def _refuse_if_hopeless(self, checkpoint: Loadable, need: int, what: str = "") -> None:
        pinned = sum(entry.nbytes for entry in self._entries.values() if entry.pinned)
        if need > self.budget - pinned:
            held = f", of which {megabytes(pinned)} are pinned" if pinned else ""
            raise MemoryRefused(
                f"{what or f'{checkpoint.id} needs'} {megabytes(need)} and the memory budget is "
                f"{megabytes(self.budget)}{held}. Raise SUITE_MEMORY_BUDGET, unpin a checkpoint, or choose a smaller "
                "one",
                field="model",
            )

    def _make_room(self, need: int) -> bool:
        """Evicts the least recently used that nobody borrows or pinned, until `need` bytes are free for weights.

        Engines' caches do not count: they shrink once the bytes are taken (`_share_the_rest`).
        """
        free = self.budget - self._weights()
        idle = sorted(
            (e for e in self._entries.values() if e.engine is not None and not e.borrows and not e.pinned),
            key=lambda e: e.last_used,
        )
        if need > free + sum(entry.nbytes for entry in idle):
            return False
        for entry in idle:
            if need <= free:
                break
            free += entry.nbytes
            self._evict(entry)
        return True

    def _share_the_rest(self) -> None:
        """Lets engines cache in the bytes that no weights take, the most recently used engine first.

        Called whenever weights come or go.
        """
        share(self._entries.values(), self.budget - self._weights())

    def _evict(self, entry: Entry) -> None:
        del self._entries[entry.checkpoint.folder]
        entry.engine = None
        self._evictions += 1
        release_freed_memory()
        self._changed.notify_all()

    def adopt(self, checkpoint: Loadable, engine: Any) -> None:
        """Adds and pins an engine that is in memory already: in a forked process, one of its parent's."""
        with self._changed:
            self._entries[checkpoint.folder] = Entry(checkpoint, engine.nbytes, engine, pinned=True)
            self._share_the_rest()

    def engines(self) -> list[tuple[Any, Any]]:
        """The checkpoints in memory, with their engines."""
        with self._changed:
            return [(e.checkpoint, e.engine) for e in self._entries.values() if e.engine is not None]

    # -- what the admin and the clock do -------------------------------------------------------

    def unload(self, checkpoint_id: str) -> None:
        """Raises `Busy` while somebody uses it; does nothing when it is not in memory."""
        with self._changed:
            for entry in self._loaded(checkpoint_id):
                if entry.borrows:
                    raise Busy(f"{checkpoint_id} is in use by {entry.borrows} request(s); try again when they are done")
                self._evict(entry)
            self._share_the_rest()

    def pin(self, checkpoint: Loadable) -> Generator[Loading, None, None]:
        """Loads it if need be, and keeps it in memory until `unpin`."""
        with (yield from self.borrow(checkpoint)) as borrowed, self._changed:
            borrowed.entry.pinned = True

    def unpin(self, checkpoint_id: str) -> None:
        with self._changed:
            for entry in self._loaded(checkpoint_id):
                entry.pinned = False
            self._changed.notify_all()

    def sweep(self) -> None:
        """Unloads what nobody has used for `idle_seconds`."""
        with self._changed:
            for entry in list(self._entries.values()):
                idle = entry.engine is not None and not entry.borrows and not entry.pinned
                if idle and self._clock() - entry.last_used >= self._idle_seconds:
                    self._evict(entry)
            self._share_the_rest()

    def _sweep_now_and_then(self) -> None:
        while not self._closed.wait(max(1.0, min(60.0, self._idle_seconds / 4))):
            self.sweep()
            trim_heap()

    def close(self) -> None:
        self._closed.set()
        if self._sweeper.is_alive():
            # Left to itself, it could be the last to hold this cache and free the weights while the interpreter ends,
            # and a thread that the interpreter ends inside PyTorch's code takes the whole process down with it.
            self._sweeper.join(timeout=10)

    # -- reporting -----------------------------------------------------------------------------

    def _loaded(self, checkpoint_id: str) -> list[Entry]:
        return [e for e in self._entries.values() if e.checkpoint.id == checkpoint_id and e.engine is not None]

    def bytes_held(self) -> int:
        """Bytes of weights in memory or reserved for a load under way, and of what engines keep for later."""
        with self._changed:
            return sum(entry.bytes_held for entry in self._entries.values())

    def _weights(self) -> int:
        return sum(entry.nbytes for entry in self._entries.values())

    def report(self) -> dict[str, Any]:
        """The state as a JSON object: budget and bytes in use, hits and misses, and a row per checkpoint."""
        with self._changed:
            now = self._clock()
            return {
                "budget_bytes": self.budget,
                "bytes_in_use": self.bytes_held(),
                "hits": self._hits,
                "misses": self._misses,
                "evictions": self._evictions,
                "checkpoints": [entry.report(now) for entry in self._entries.values()],
            }
