"""The way to the compute lane, as engines see it: steps, and kernels that compute many pieces of work at once."""

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
    """Computes many pieces of work in one forward pass, be they of one request or of many.

    A piece's outcome does not depend on which others it is computed with.
    """

    def __call__(self, pieces: Sequence[P], /) -> Sequence[R | Again | Failed]:
        """An outcome for each piece, in their order: its result, `AGAIN` if it needs another step, or `Failed`."""
        ...

    def room(self, pieces: Sequence[P], another: P, /) -> bool:
        """Whether another piece may be computed in one step with these."""
        ...

    def most_cores(self, pieces: Sequence[P], /) -> int:
        """Beyond so many the step gets no faster."""
        ...


class Again(Enum):
    """Says that a piece wants another step: the next token, say. Before that it can be cancelled, and others join."""

    AGAIN = 0


AGAIN = Again.AGAIN


@dataclass(frozen=True, slots=True)
class Failed:
    """A piece that could not be computed; the others of its batch could."""

    error: BaseException


class Compute(Protocol):
    """The way to the compute lane."""

    @property
    def owner(self) -> str:
        """Who asks: what is kept of one owner's computations is of no use to another."""
        ...

    def __call__(self, step: Callable[[], T], /) -> T:
        """Runs one step on the compute lane and returns what it returns.

        Raises `Cancelled` when the request was stopped.
        """
        ...

    def begin(self, kernel: Kernel[P, R], piece: P, /) -> Future[R]:
        """Has a piece computed, together with others that wait for the same kernel. Ends as `__call__` does."""
        ...

    def together(self, kernel: Kernel[P, R], pieces: Sequence[P], /) -> list[R]:
        """The results of many pieces, in their order. Raises the first failure, after all have ended."""
        ...


class RunHere:
    """A `Compute` without a lane: runs everything at once in the caller's thread (tests, evaluation, scripts)."""

    owner = ""

    def __init__(self, run: Callable[[Callable[[], Any]], Any] = lambda step: step()) -> None:
        """`run` is what every step goes through."""
        self._run = run

    def __call__(self, step: Callable[[], T], /) -> T:
        return self._run(step)

    def begin(self, kernel: Kernel[P, R], piece: P, /) -> Future[R]:
        future: Future[R] = Future()
        try:
            future.set_result(self.together(kernel, [piece])[0])
        except BaseException as error:
            future.set_exception(error)
        return future

    def together(self, kernel: Kernel[P, R], pieces: Sequence[P], /) -> list[R]:
        results: dict[int, R] = {}
        waiting = list(range(len(pieces)))
        while waiting:
            batch = waiting[:1]
            for place in waiting[1:]:
                if kernel.room([pieces[i] for i in batch], pieces[place]):
                    batch.append(place)
            for place, outcome in zip(batch, self(lambda b=batch: kernel([pieces[i] for i in b])), strict=True):
                if isinstance(outcome, Failed):
                    raise outcome.error
                if not isinstance(outcome, Again):
                    results[place] = outcome
            waiting = [place for place in waiting if place not in results]
        return [results[place] for place in range(len(pieces))]


run_here = RunHere()


def all_of(futures: Sequence[Future[R]]) -> list[R]:
    """The results in order. Raises the first failure, after all have ended."""
    wait(futures)
    return [future.result() for future in futures]
