"""The compute lane: who computes next, with whom, and on how many cores.

All models share one lane, so that two of them never fight for the same cores. A request is
first *admitted* (a bounded number is in progress at a time), and then runs one step after
another; between steps of one visitor, steps of the others get their turn. Both queues are
fair between visitors, not between requests: ten requests of one visitor do not push
back the single request of another.

Work for the same *kernel* that waits when its turn comes is computed in one batch, whoever asked for
it. Nobody waits for a batch to fill: a lone request runs at once, and batches grow as the lane is busy.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from shared.engines import AGAIN, Failed, Kernel
from shared.errors import Busy, Cancelled

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")


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

    def join(self, fits: Callable[[T], bool]) -> Iterator[T]:
        """Takes further items that fit, one of each visitor at a time: nobody's many leave another's one out."""
        found = True
        while found:
            found = False
            for visitor in list(self._waiting):
                item = next((item for item in self._waiting[visitor] if fits(item)), None)
                if item is not None:
                    self.remove(visitor, item)
                    found = True
                    yield item

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


@dataclass(eq=False, slots=True)
class Work:
    """What waits on the lane: one piece of a kernel's work."""

    visitor: str
    kernel: Kernel[Any, Any]
    piece: Any
    group: Hashable
    """Work of one group may be computed together."""
    around: Callable[[Callable[[], Any]], Callable[[], Any]] | None
    """What a computation of this group is wrapped in: the adapter that is active for its length."""
    cancel: threading.Event
    timing: Timing
    future: Future[Any]
    asked: float


class Lane:
    """Runs up to `width` steps side by side, which share `cores` between them.

    A step that runs alone gets all cores; beside others it gets its share. What a model answers does not depend on
    that (tested: the language model's logits and the encoder's vectors are the same bit for bit).
    """

    def __init__(self, cores: int, width: int = 1) -> None:
        self._cores = cores
        self._busy = 0
        self._work = threading.Condition()
        self._queue: FairQueue[Work] = FairQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"lane-{number}", daemon=True) for number in range(width)
        ]
        for thread in self._threads:
            thread.start()
        # A thread that the interpreter ends inside PyTorch's code takes the whole process down with it.
        atexit.register(self.close)

    def run(self, visitor: str, step: Callable[[], T], cancel: threading.Event, timing: Timing) -> T:
        """Runs one step by itself in its turn and returns its result; adds what it took to `timing`.

        Raises `Cancelled` when `cancel` is set before the step begins, and whatever the step raises.
        """
        return self.begin(visitor, ALONE, step, cancel, timing, group=object()).result()

    def begin(
        self,
        visitor: str,
        kernel: Kernel[P, R],
        piece: P,
        cancel: threading.Event,
        timing: Timing,
        *,
        group: Hashable = None,
        around: Callable[[Callable[[], Any]], Callable[[], Any]] | None = None,
    ) -> Future[R]:
        """Has a piece computed in its turn, together with other pieces of its group that wait then.

        The future ends as the kernel says, or with `Cancelled` once `cancel` is set.
        """
        future: Future[R] = Future()
        group = kernel if group is None else group
        work = Work(visitor, kernel, piece, group, around, cancel, timing, future, time.perf_counter())
        with self._work:
            if self._closed:
                raise Cancelled
            self._queue.put(visitor, work)
            self._work.notify()
        return future

    def _serve(self) -> None:
        threads = 0
        while (taken := self._take()) is not None:
            batch, share = taken
            if share != threads and (torch := sys.modules.get("torch")):
                # OpenMP's thread count belongs to the calling thread, so each lane thread sets its own.
                torch.set_num_threads(share)
                threads = share
            begun = time.perf_counter()
            self._end(batch, outcomes_of(batch), begun)
            # Without this the frame keeps the last step's tensors alive while the lane waits.
            del taken, batch

    def _take(self) -> tuple[list[Work], int] | None:
        """Waits for work; the next batch and the cores it gets, None once the lane is closed."""
        while True:
            with self._work:
                self._work.wait_for(lambda: len(self._queue) or self._closed)
                if self._closed:
                    return None
                batch, gone = self._next_batch()
                self._busy += bool(batch)
                # Those that wait will run in a moment too.
                share = max(1, self._cores // min(self._cores, max(1, self._busy) + len(self._queue)))
            for work in gone:
                work.timing.queued += time.perf_counter() - work.asked
                work.future.set_exception(Cancelled())
            if batch:
                return batch, min(share, batch[0].kernel.most_cores([work.piece for work in batch]))

    def _next_batch(self) -> tuple[list[Work], list[Work]]:
        """The work whose turn it is with all that may join it, and what was cancelled meanwhile."""
        first = self._queue.pop()
        if first.cancel.is_set():
            return [], [first]
        gone = list(self._queue.join(lambda work: work.group == first.group and work.cancel.is_set()))
        batch = [first]

        def fits(work: Work) -> bool:
            return work.group == first.group and first.kernel.room([w.piece for w in batch], work.piece)

        for work in self._queue.join(fits):  # `fits` looks at the batch, so it grows one by one
            batch.append(work)  # noqa: PERF402
        return batch, gone

    def _end(self, batch: Sequence[Work], outcomes: Sequence[Any], begun: float) -> None:
        """Accounts for a batch, queues again what wants another step, and wakes those who have their results."""
        ended = time.perf_counter()
        for work in batch:
            work.timing.queued += begun - work.asked
            work.timing.running += ended - begun
            work.asked = ended
        # Before the requesters wake and ask for their next steps, which would seem to run beside this one.
        with self._work:
            self._busy -= 1
            for work, outcome in zip(batch, outcomes, strict=True):
                if outcome is AGAIN and self._closed:
                    work.future.set_exception(Cancelled())
                elif outcome is AGAIN:
                    self._queue.put(work.visitor, work)
                    self._work.notify()
        for work, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Failed):
                work.future.set_exception(outcome.error)
            elif outcome is not AGAIN:
                work.future.set_result(outcome)

    def close(self) -> None:
        """Ends what waits with `Cancelled`, lets the steps under way finish, and stops the threads."""
        atexit.unregister(self.close)
        with self._work:
            self._closed = True
            while len(self._queue):
                self._queue.pop().future.set_exception(Cancelled())
            self._work.notify_all()
        for thread in self._threads:
            thread.join(timeout=10)


def outcomes_of(batch: Sequence[Work]) -> Sequence[Any]:
    """One outcome a piece. If the batch fails as a whole, each piece is tried by itself: one harms no other."""
    pieces = [work.piece for work in batch]

    def step() -> Sequence[Any]:
        return batch[0].kernel(pieces)

    try:
        return (batch[0].around(step) if batch[0].around else step)()
    except BaseException as error:
        if len(batch) == 1:
            return [Failed(error)]
    return [outcome for work in batch for outcome in outcomes_of([work])]


class _Alone:
    """The kernel of a step that is computed by itself: the piece is the step."""

    def __call__(self, pieces: Sequence[Callable[[], Any]]) -> list[Any]:
        return [piece() for piece in pieces]

    def room(self, pieces: Sequence[Any], another: Any) -> bool:
        return False

    def most_cores(self, pieces: Sequence[Any]) -> int:
        return sys.maxsize


ALONE = _Alone()


class Timing:
    """Seconds a request spent waiting for its turns and computing."""

    __slots__ = ("queued", "running")

    def __init__(self) -> None:
        self.queued = 0.0
        self.running = 0.0
