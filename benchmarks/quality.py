"""What the parts of the evaluation share: the items, a checkpoint on loan, and one row of the table."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from benchmarks import ROOT
from benchmarks.stats import Interval
from shared.events import result_of
from shared.serving.context import Context
from shared.serving.lease import Lease

T = TypeVar("T")
Item = dict[str, str]

MINILM = "all-MiniLM-L6-v2"
SMOLLM = "SmolLM2-135M-Instruct"

ROOM = 14.0
"""Points a floor lies below the figure stated for it: small sets know an accuracy to ±6–14 points."""

QUICK_ITEMS = 6


@dataclass(frozen=True)
class Row:
    """One line of the table by one engine: values in points (0 to 100)."""

    task: str
    method: str
    metric: str
    n: int
    values: tuple[float, ...]
    intervals: tuple[Interval, ...] = ()
    seconds: float | None = None
    stated: float | None = None
    """What an earlier measurement on other small sets found for the first of `values`."""
    model: str = ""
    """The checkpoint; a baseline has none."""
    engine: str = ""
    """What RunInfo calls the engine that answered."""
    answers: tuple[str, ...] = ()
    """Labels or texts, in the order of the items."""
    judged_with: str = ""
    """Rows of one checkpoint with the same words here are judged as one."""

    @property
    def floor(self) -> str:
        if self.stated is None:
            return ""
        return f"{self.stated - ROOM:.1f} {'met' if self.values[0] >= self.stated - ROOM else '**missed**'}"


def items(name: str, quick: bool) -> list[Item]:
    """The items of `tests/data/<name>.jsonl`; with `quick`, some of them from all over the file."""
    lines = (ROOT / "tests" / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines if line.strip()]
    return found[:: max(1, len(found) // QUICK_ITEMS)][:QUICK_ITEMS] if quick else found


@contextmanager
def on_loan(context: Context, borrowing: Generator[Any, None, Lease]) -> Iterator[Lease]:
    """The checkpoint, loaded before the clock of whoever measures starts."""
    with result_of(borrowing) as lease:
        yield lease


@contextmanager
def clock() -> Iterator[list[float]]:
    """Appends the seconds the `with` block took to the list it gives."""
    taken: list[float] = []
    begun = time.perf_counter()
    try:
        yield taken
    finally:
        taken.append(time.perf_counter() - begun)


def points(values: Sequence[float]) -> float:
    """Mean of shares, in points."""
    return 100 * sum(values) / max(len(values), 1)


def in_points(interval: Interval) -> Interval:
    return 100 * interval[0], 100 * interval[1]
