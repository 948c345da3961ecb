"""Single flight: callers that want the same work at the same time share one run of it, and all see its progress."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from filelock import FileLock, Timeout

from shared.errors import Cancelled
from shared.events import Progress

T = TypeVar("T")

HEARTBEAT = 0.2
"""Seconds after which a waiting caller reads the progress again."""


@dataclass(eq=False)
class Flight(Generic[T]):
    """Work under way in a thread of its own."""

    waiting: int = 0
    progress: tuple[str, int, int] = ("starting", 0, 0)
    over: threading.Event = field(default_factory=threading.Event)
    result: T | None = None
    error: BaseException | None = None

    def report(self, what: str, done: int, total: int) -> None:
        """The `Progress` for the work. Raises `Cancelled` once no caller waits any more."""
        if not self.waiting:
            raise Cancelled
        self.progress = what, done, total


class SingleFlight(Generic[T]):
    """Runs `work(progress)` once for all who ask under one key at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[str, Flight[T]] = {}

    def run(self, key: str, work: Callable[[Progress], T]) -> Generator[tuple[str, int, int], None, T]:
        """Yields what is being done, bytes done and in all, until there is a result; then returns it.

        Closing the generator does not affect other callers; once all have closed theirs, the work's next progress
        report raises `Cancelled`. Raises what the work raised.
        """
        flight = self._join(key, work)
        try:
            while not flight.over.wait(HEARTBEAT):
                yield flight.progress
        finally:
            with self._lock:
                flight.waiting -= 1
        if flight.error is not None:
            raise flight.error.with_traceback(None)
        return flight.result  # pyright: ignore[reportReturnType] - there is one, since there is no error

    def _join(self, key: str, work: Callable[[Progress], T]) -> Flight[T]:
        with self._lock:
            flight = self._flights.get(key)
            if flight is None or (not flight.waiting and not flight.over.is_set()):
                # A flight without callers is about to end; the next one waits for the same lock on disk.
                flight = Flight(waiting=1)
                threading.Thread(target=self._fly, args=(key, flight, work), name=f"fetch-{key}", daemon=True).start()
                self._flights[key] = flight  # only now: a thread that did not start would leave all waiting for ever
            else:
                flight.waiting += 1
            return flight

    def _fly(self, key: str, flight: Flight[T], work: Callable[[Progress], T]) -> None:
        try:
            flight.result = work(flight.report)
        except BaseException as error:
            flight.error = error
        finally:
            with self._lock:
                if self._flights.get(key) is flight:
                    del self._flights[key]
            flight.over.set()


@contextmanager
def one_process_at_a_time(lock: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds a lock that other processes respect, as does another thread of this one.

    `waiting` is called now and then until the lock is ours, and may raise to give up.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock, mode=0o664)  # for users who share a cache, as the Hub's client has it
    while True:
        try:
            held.acquire(timeout=HEARTBEAT)
            break
        except Timeout:
            waiting()
    try:
        yield
    finally:
        held.release()
