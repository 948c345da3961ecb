"""The compute lane: who computes next, and on how many cores.

All models share one lane, so that two of them never fight for the same cores. A request is
first *admitted* (a bounded number is in progress at a time), and then runs one step after
another; between steps of one visitor, steps of the others get their turn. Both queues are
fair between visitors, not between requests: ten requests of one visitor do not push
back the single request of another.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar

from shared.errors import Busy, Cancelled

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First in, first out for one visitor; visitors take turns. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, visitor: str, item: T) -> None:
        self._waiting.setdefault(visitor, deque()).append(item)

    def pop(self) -> T:
        """The next item; its visitor goes to the end of the row."""
        visitor, items = self._waiting.popitem(last=False)
        item = items.popleft()
        if items:
            self._waiting[visitor] = items
        return item

    def remove(self, visitor: str, item: T) -> None:
        items = self._waiting.get(visitor)
        if items and item in items:
            items.remove(item)
            if not items:
                del self._waiting[visitor]

    def place(self, visitor: str, item: T) -> int:
        """How many will have been popped when this item comes, itself included; 0 when it is not waiting."""
        items = self._waiting.get(visitor)
        if not items or item not in items:
            return 0
        round_of_item = items.index(item)
        visitors = list(self._waiting)
        before_me = visitors.index(visitor)
        return (
            1
            + sum(
                min(len(other), round_of_item + (position <= before_me))
                for position, other in enumerate(self._waiting.values())
                if other is not items
            )
            + round_of_item
        )


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


class Lane:
    """Runs up to `width` steps side by side, which share `cores` between them.

    A step that runs alone gets all cores; beside others it gets its share. What a model answers does not depend on
    that (tested: the language model's logits and the encoder's vectors are the same bit for bit).
    """

    def __init__(self, cores: int, width: int = 1) -> None:
        self._cores = cores
        self._busy = 0
        self._work = threading.Condition()
        self._queue: FairQueue[tuple[Callable[[], object], Future]] = FairQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"lane-{number}", daemon=True) for number in range(width)
        ]
        for thread in self._threads:
            thread.start()
        # A thread that the interpreter ends inside PyTorch's code takes the whole process down with it.
        atexit.register(self.close)

    def run(self, visitor: str, step: Callable[[], T], cancel: threading.Event, timing: Timing) -> T:
        """Runs one step in its turn and returns its result; adds what it took to `timing`.

        Raises `Cancelled` when `cancel` is set before the step begins, and whatever the step raises.
        """
        begun = 0.0

        def timed() -> T:
            nonlocal begun
            begun = time.perf_counter()
            if cancel.is_set():
                raise Cancelled
            return step()

        asked = time.perf_counter()
        future: Future[T] = Future()
        with self._work:
            if self._closed:
                raise Cancelled
            self._queue.put(visitor, (timed, future))
            self._work.notify()
        try:
            return future.result()
        finally:
            ended = time.perf_counter()
            timing.queued += (begun or ended) - asked
            timing.running += ended - (begun or ended)

    def _serve(self) -> None:
        threads = 0
        while True:
            with self._work:
                self._work.wait_for(lambda: len(self._queue) or self._closed)
                if self._closed:
                    return
                step, future = self._queue.pop()
                self._busy += 1
                # Those that wait will run in a moment too.
                share = max(1, self._cores // min(self._cores, self._busy + len(self._queue)))
            if share != threads and (torch := sys.modules.get("torch")):
                # OpenMP's thread count belongs to the calling thread, so each lane thread sets its own.
                torch.set_num_threads(share)
                threads = share
            result = failure = None
            try:
                result = step()
            except BaseException as error:
                failure = error
            # Before the requester wakes and asks for its next step, which would seem to run beside this one.
            with self._work:
                self._busy -= 1
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
            # Without this the frame keeps the last step's tensors alive while the lane waits.
            del step, future, result, failure

    def close(self) -> None:
        """Ends what waits with `Cancelled`, lets the steps under way finish, and stops the threads."""
        atexit.unregister(self.close)
        with self._work:
            self._closed = True
            while len(self._queue):
                self._queue.pop()[1].set_exception(Cancelled())
            self._work.notify_all()
        for thread in self._threads:
            thread.join(timeout=10)


class Timing:
    """Seconds a request spent waiting for its turns and computing."""

    __slots__ = ("queued", "running")

    def __init__(self) -> None:
        self.queued = 0.0
        self.running = 0.0
