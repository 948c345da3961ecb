"""Admission: how many requests are in progress at a time, and who comes next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import Busy
from shared.scheduling.fair_queue import FairQueue


class Admission:
    """Lets a bounded number of requests be in progress; the others wait in fair order."""

    def __init__(self, max_running: int, queue_size: int) -> None:
        self._max_running = max_running
        self._queue_size = queue_size
        self._changed = threading.Condition()
        self._queue: FairQueue[object] = FairQueue()
        self._running = 0

    @contextmanager
    def enter(self, visitor: str) -> Iterator[Callable[[float], int]]:
        """Joins the queue; leaves it, or gives the place back, at the end of the `with` block.

        Yields `wait(seconds)`: it waits that long at most and returns the place in the queue, 0 once admitted.
        Raises `Busy` when the queue is full.
        """
        ticket = object()
        with self._changed:
            if len(self._queue) >= self._queue_size:
                raise Busy(f"{len(self._queue)} requests are waiting already; try again in a minute")
            self._queue.put(visitor, ticket)
            admitted = self._admit(ticket)

        def wait(seconds: float) -> int:
            nonlocal admitted
            with self._changed:
                if not admitted:
                    self._changed.wait_for(lambda: self._queue.place(visitor, ticket) == 0, timeout=seconds)
                place = self._queue.place(visitor, ticket)
                admitted = place == 0
                return place

        try:
            yield wait
        finally:
            with self._changed:
                if self._queue.place(visitor, ticket):
                    self._queue.remove(visitor, ticket)
                else:
                    self._running -= 1
                self._admit(None)
                self._changed.notify_all()

    def _admit(self, ticket: object | None) -> bool:
        """Admits as many as there is room for; tells whether `ticket` is among them."""
        found = False
        while self._running < self._max_running and len(self._queue):
            found |= self._queue.pop() is ticket
            self._running += 1
        return found

    def report(self) -> dict[str, int]:
        with self._changed:
            return {"running": self._running, "queued": len(self._queue)}
