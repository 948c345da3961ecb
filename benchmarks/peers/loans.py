"""The suite's own engines, borrowed as a request borrows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from shared.engines.protocols import Engine
from shared.events import result_of
from shared.machine import usable_cores
from shared.serving.context import Context
from shared.serving.lease import Lease
from shared.serving.runtime import start
from shared.settings import Settings

T = TypeVar("T")
E = TypeVar("E", bound=Engine)

MOST = 8


class Loans(Generic[E]):
    """One checkpoint, lent to as many visitors as ask at once."""

    def __init__(self, engine_of: Callable[[Lease], E], task: Any, pair: tuple[str, str] | None = None) -> None:
        self._asked = task, pair
        self._runtime = start(Settings())
        self._threads = ThreadPoolExecutor(MOST)
        with self.lease(0) as lease:
            self.engine, self.checkpoint = engine_of(lease), lease.checkpoint

    def lease(self, visitor: int) -> Lease:
        return result_of(Context(self._runtime, f"visitor {visitor}").borrow("", *self._asked))

    def each(self, ask: Callable[[Lease, Any], T], what: Sequence[Any]) -> list[T]:
        """Every item by a visitor of its own, all at once."""

        def one(visitor: int) -> T:
            with self.lease(visitor) as lease:
                return ask(lease, what[visitor])

        return list(self._threads.map(one, range(len(what))))

    def facts(self) -> dict[str, Any]:
        return {
            "engine": self.engine.name,
            "threads": threads_of(self.engine),
            "stored": stored_bytes(self.engine, self.checkpoint.parameters),
        }


def threads_of(engine: Any) -> int:
    """Those that a step of it may use."""
    decoder = getattr(engine, "decoder", None)
    return decoder.most_cores([]) if decoder else usable_cores()


def stored_bytes(engine: Any, parameters: int) -> int:
    """Bytes of weights read for a token: of the format that the engine's name tells, or all it holds if that is less.

    An engine may hold more than it reads for a token, such as embeddings apart from an output layer; the compiled ones
    read all of it, the steps and offsets of their integers with them.
    """
    if engine.name.startswith("compiled"):
        return engine.nbytes
    for ending, size in (("int8", 1), ("bf16", 2), ("fp32", 4)):
        if ending in engine.name:
            return min(parameters * size, engine.nbytes)
    return engine.nbytes
