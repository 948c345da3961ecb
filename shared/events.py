"""What a task function yields, and the RunInfo that ends every answer.

A task function is a generator of these events. It knows no transport: the page, the API,
a benchmark and a test all consume the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[str, int, int], None]
"""`progress(what, done, total)`: what is being done, the bytes done and the bytes in all (0 while unknown)."""


class RunInfo(BaseModel):
    """What was run and what it cost. Times are wall-clock seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: str
    revision: str
    adapter: str = ""
    engine: str
    limits: str = Field(default="", description="What this checkpoint cannot do, in one sentence.")
    warning: str = Field(default="", description="Something about this input that makes the answer doubtful.")
    seconds_queued: float = Field(default=0.0, description="Waiting for other visitors' computations.")
    seconds_loading: float = Field(default=0.0, description="Waiting for the weights.")
    seconds_running: float = Field(default=0.0, description="Computing.")
    input_tokens: int = 0
    new_tokens: int = 0
    tokens_per_second: float | None = Field(
        default=None, description="New tokens per second of computing; null where none are made."
    )
    loaded: bool = Field(default=False, description="Whether the model cache already held the weights.")
    cached: bool = Field(
        default=False,
        description="Whether this is a kept answer, to an example or to the same question of the same visitor; the "
        "other figures are then those of the computation that made it.",
    )


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits for its turn; `place` is 1 for the next one."""

    place: int

    def as_json(self) -> dict[str, Any]:
        return {"status": "queued", "place": self.place}


@dataclass(frozen=True, slots=True)
class Loading:
    """The request waits for weights. `done` and `total` are bytes; `total` is 0 while unknown."""

    checkpoint: str
    what: str
    done: int
    total: int

    def as_json(self) -> dict[str, Any]:
        return {
            "status": "loading",
            "checkpoint": self.checkpoint,
            "what": self.what,
            "done": self.done,
            "total": self.total,
        }


@dataclass(frozen=True, slots=True)
class Running:
    """Work goes on without a result to show yet. `done` of `total` parts; `total` is 0 while unknown."""

    what: str = ""
    done: int = 0
    total: int = 0

    def as_json(self) -> dict[str, Any]:
        return {"status": "running", "what": self.what, "done": self.done, "total": self.total}


@dataclass(frozen=True, slots=True)
class Partial(Generic[R]):
    """The result so far."""

    result: R

    def as_json(self) -> dict[str, Any]:
        return {"status": "running"}


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """The result, and what it took."""

    result: R
    run: RunInfo


def result_of(generator: Generator[T, None, R], on_item: Callable[[T], object] = lambda _: None) -> R:
    """Runs a generator to its end and gives the value that it returns; each yielded item goes to `on_item`.

    Raises the generator's errors.
    """
    while True:
        try:
            item = next(generator)
        except StopIteration as end:
            return end.value
        on_item(item)


Waiting = Queued | Loading | Running
Event = Queued | Loading | Running | Partial[R] | Done[R]
