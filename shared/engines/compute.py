"""The way to the compute lane, as engines see it: single steps, and kernels that compute many items at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
P = TypeVar("P", contravariant=True)
R = TypeVar("R", covariant=True)


class Kernel(Protocol[P, R]):
    """Computes many items in one forward pass, whether they belong to one request or to several.

    An item's outcome does not depend on the other items of its batch.
    """

    def __call__(self, items: Sequence[P], /) -> Sequence[R | Again | Failed]:
        """An outcome for each item, in order: its result, `AGAIN` if it needs another step, or `Failed`."""
        ...

    def can_join(self, batch: Sequence[P], item: P, /) -> bool:
        """Whether the item may be computed in one step with this batch, which is not empty."""
        ...

    def most_cores(self, items: Sequence[P], /) -> int:
        """With more cores than this the step gets no faster."""
        ...


class Again(Enum):
    """An item needs another step, for its next token say. Before it, others may join and a Stop takes effect."""

    AGAIN = 0


AGAIN = Again.AGAIN


@dataclass(frozen=True, slots=True)
class Failed:
    """The outcome of an item that could not be computed, though the rest of its batch could."""

    error: BaseException


class Compute(Protocol):
    """The way to the compute lane; `submit` and `map` are as in `concurrent.futures`."""

    @property
    def owner(self) -> str:
        """The visitor and the adapter of the request. What one owner computed is not reused for another."""
        ...

    def __call__(self, step: Callable[[], T], /) -> T:
        """Runs one step on the compute lane and returns its result.

        Raises `Cancelled` when the request was stopped.
        """
        ...

    def submit(self, kernel: Kernel[P, R], item: P, /) -> Future[R]:
        """Computes an item together with others that wait for the same kernel. The future fails as `__call__` does."""
        ...

    def map(self, kernel: Kernel[P, R], items: Sequence[P], /) -> list[R]:
        """The results of many items, in order. Raises the first failure, after all have ended."""
        ...


class RunHere:
    """A `Compute` without a lane: runs everything at once in the caller's thread (tests, evaluation, scripts)."""

    owner = ""

    def __init__(self, run: Callable[[Callable[[], Any]], Any] = lambda step: step()) -> None:
        """`run` executes each step."""
        self._run = run

    def __call__(self, step: Callable[[], T], /) -> T:
        return self._run(step)

    def submit(self, kernel: Kernel[P, R], item: P, /) -> Future[R]:
        future: Future[R] = Future()
        try:
            future.set_result(self.map(kernel, [item])[0])
        except BaseException as error:
            future.set_exception(error)
        return future

    def map(self, kernel: Kernel[P, R], items: Sequence[P], /) -> list[R]:
        results: dict[int, R] = {}
        pending = list(range(len(items)))
        while pending:
            batch = pending[:1]
            for index in pending[1:]:
                if kernel.can_join([items[i] for i in batch], items[index]):
                    batch.append(index)
            for index, outcome in zip(batch, self(lambda b=batch: kernel([items[i] for i in b])), strict=True):
                if isinstance(outcome, Failed):
                    raise outcome.error
                if not isinstance(outcome, Again):
                    results[index] = outcome
            pending = [index for index in pending if index not in results]
        return [results[index] for index in range(len(items))]


run_here = RunHere()


def all_of(futures: Sequence[Future[R]]) -> list[R]:
    """The results in order. Raises the first failure, after all have ended."""
    wait(futures)
    return [future.result() for future in futures]
