"""The compute lane: who computes next, with whom, and on how many cores.

All models share one lane, so that two of them never fight for the same cores. A request is
first *admitted* (`shared.scheduling.admission`), and then runs one step after another; between steps of one
visitor, steps of the others get their turn. Both queues are fair between visitors, not between
requests: ten requests of one visitor do not push back the single request of another.

Work for the same *kernel* that waits when its turn comes is computed in one batch, whoever asked for
it. Nobody waits for a batch to fill: a lone request runs at once, and batches grow as the lane is busy.
"""

from __future__ import annotations

import atexit
import math
import sys
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from shared.engines.compute import AGAIN, Failed, Kernel
from shared.errors import Cancelled
from shared.scheduling.fair_queue import FairQueue

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")


@dataclass(eq=False, slots=True)
class Work:
    """What waits on the lane: one item of a kernel's work."""

    visitor: str
    kernel: Kernel[Any, Any]
    item: Any
    group: Hashable
    """Work of one group may be computed together."""
    around: Callable[[Callable[[], Any]], Callable[[], Any]] | None
    """Context of a computation of this group: it activates the adapter."""
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
        self._width = width
        self._running: list[list[Work]] = []
        """The batches that are being computed."""
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
        return self.submit(visitor, ALONE, step, cancel, timing, group=object()).result()

    def submit(
        self,
        visitor: str,
        kernel: Kernel[P, R],
        item: P,
        cancel: threading.Event,
        timing: Timing,
        *,
        group: Hashable = None,
        around: Callable[[Callable[[], Any]], Callable[[], Any]] | None = None,
    ) -> Future[R]:
        """Computes an item in its turn, together with other items of its group that wait then.

        The future ends as the kernel says, or with `Cancelled` once `cancel` is set.
        """
        future: Future[R] = Future()
        group = kernel if group is None else group
        work = Work(visitor, kernel, item, group, around, cancel, timing, future, time.perf_counter())
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
                if batch:
                    self._running.append(batch)
                # Those that wait will run in a moment too.
                share = max(1, self._cores // min(self._cores, max(1, len(self._running)) + len(self._queue)))
            for work in gone:
                work.timing.queued += time.perf_counter() - work.asked
                work.future.set_exception(Cancelled())
            if batch:
                return batch, min(share, batch[0].kernel.most_cores([work.item for work in batch]))

    def _next_batch(self) -> tuple[list[Work], list[Work]]:
        """The work whose turn it is with all that may join it, and what was cancelled meanwhile."""
        first = self._queue.pop()
        if first.cancel.is_set():
            return [], [first]
        gone = list(self._queue.join(lambda work: work.group == first.group and work.cancel.is_set()))
        batch = [first]
        most = self._share(first.group)

        def fits(work: Work) -> bool:
            return (
                len(batch) < most
                and work.group == first.group
                and first.kernel.can_join([w.item for w in batch], work.item)
            )

        for work in self._queue.join(fits):  # `fits` looks at the batch, so it grows one by one
            batch.append(work)  # noqa: PERF402
        return batch, gone

    def _share(self, group: Hashable) -> float:
        """Items of a group in one batch, where it has several cores to itself: an equal part for each.

        Otherwise what asks token by token goes in convoys as they came together, one of seven and one of a single
        item for instance, and the long one holds up most of them.
        """
        others = [*self._queue, *(work for batch in self._running for work in batch)]
        if any(work.group != group for work in others):
            return math.inf
        return math.ceil((1 + len(others)) / min(self._width, self._cores))

    def _end(self, batch: list[Work], outcomes: Sequence[Any], begun: float) -> None:
        """Accounts for a batch, queues again what wants another step, and wakes those who have their results."""
        ended = time.perf_counter()
        for work in batch:
            work.timing.queued += begun - work.asked
            work.timing.running += ended - begun
            work.asked = ended
        # Before the requesters wake and ask for their next steps, which would seem to run beside this one.
        with self._work:
            self._running = [other for other in self._running if other is not batch]
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
    """One outcome an item. If the batch fails as a whole, each item is tried by itself: one harms no other."""
    items = [work.item for work in batch]

    def step() -> Sequence[Any]:
        return batch[0].kernel(items)

    try:
        return (batch[0].around(step) if batch[0].around else step)()
    except BaseException as error:
        if len(batch) == 1:
            return [Failed(error)]
    return [outcome for work in batch for outcome in outcomes_of([work])]


class _Alone:
    """The kernel of a step that is computed by itself: the item is the step."""

    def __call__(self, items: Sequence[Callable[[], Any]]) -> list[Any]:
        return [item() for item in items]

    def can_join(self, batch: Sequence[Any], item: Any) -> bool:
        return False

    def most_cores(self, items: Sequence[Any]) -> int:
        return sys.maxsize


ALONE = _Alone()


class Timing:
    """Seconds a request spent waiting for its turns and computing."""

    __slots__ = ("queued", "running")

    def __init__(self) -> None:
        self.queued = 0.0
        self.running = 0.0
