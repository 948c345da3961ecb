"""Every request, from the page, the API, a test or a benchmark, goes through `Endpoint.run`.

Validation, limits, stored answers, statistics and the translation of failures are applied here, once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from shared.checkpoints.kinds import Task
from shared.errors import Cancelled, InvalidInput, SuiteError
from shared.events import Done, Event
from shared.serving.context import Context
from shared.serving.lease import Lease
from shared.serving.requests import Request, validate
from shared.serving.traffic import Traffic

log = logging.getLogger(__name__)

Q = TypeVar("Q", bound=Request)


class Result(Protocol):
    """The result of a task function: any type that gives the values that the API returns."""

    def outputs(self) -> tuple[Any, ...]:
        """JSON values in the order of `Endpoint.returns`."""
        ...


class RowResult(Result, Protocol):
    """A result that can stand in a table."""

    def row(self) -> dict[str, Any]:
        """Columns that a batch adds to its table."""
        ...


@dataclass(frozen=True)
class Rows(Generic[Q]):
    """How an endpoint answers many texts with the same settings on one lease of its checkpoint."""

    borrow: Callable[[Q, Context], Generator[Event, None, Lease]]
    answer: Callable[[Sequence[Q], Lease], Iterable[RowResult]]


@dataclass(frozen=True)
class Endpoint(Generic[Q]):
    """One named entry of the API: a task function, its request model and its outputs beside RunInfo."""

    task: Callable[[Q, Context], Iterator[Event]]
    request: type[Q]
    returns: dict[str, type]
    """Name and JSON type of each output, RunInfo excepted, which always comes last."""
    rows: Rows[Q] | None = None
    """Set where a batch of texts makes sense."""
    hub_task: Task | None = None
    """The Hub task that its checkpoints do; None for an endpoint that uses no checkpoint."""

    @property
    def name(self) -> str:
        return self.task.__name__

    @property
    def summary(self) -> str:
        """The task function's docstring: the API's documentation."""
        return (self.task.__doc__ or "").strip()

    def run(self, values: dict[str, Any], context: Context, traffic: Traffic) -> Iterator[Event]:
        """Yields the task's events. Raises `SuiteError` and `Cancelled`, and nothing else."""
        begun = time.perf_counter()
        outcome = "failed"
        traffic.begin()
        try:
            try:
                request = validate(self.request, values, context.settings)
            except InvalidInput:
                traffic.admit(context)
                raise
            question = traffic.answers.question(self.name, request, context)
            stored = traffic.answers.get(question)
            if stored is not None:
                # Outside the limit on requests, since nothing is computed.
                outcome = "cached"
                yield stored
            else:
                traffic.admit(context)
                for event in self._events(request, context):
                    if isinstance(event, Done):
                        traffic.answers.keep(question, event)
                        # Before the event is handed over: a caller who has the result may ask for no further event.
                        outcome = "done"
                    yield event
        except (Cancelled, GeneratorExit):
            outcome = outcome if outcome in ("done", "cached") else "cancelled"
            raise
        except SuiteError as error:
            outcome = type(error).__name__
            raise
        except MemoryError as error:
            raise SuiteError("there was not enough memory for this input; try a shorter one") from error
        except Exception as error:
            log.exception("/%s failed", self.name)
            raise SuiteError(
                "something failed here, which is our fault; the log says what. Please try again"
            ) from error
        finally:
            traffic.count(self.name, outcome, time.perf_counter() - begun)

    def _events(self, request: Q, context: Context) -> Iterator[Event]:
        elsewhere = context.runtime.elsewhere
        return elsewhere(self.name, self.task, request, context) if elsewhere else self.task(request, context)


def collect(events: Iterator[Event]) -> Done:
    """The last event of a run, for callers that show no progress."""
    for event in events:
        if isinstance(event, Done):
            return event
    raise InvalidInput("the request ended without a result")
