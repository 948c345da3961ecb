"""A way to the lane that counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from shared.engines.compute import RunHere
from shared.errors import Cancelled

T = TypeVar("T")


class Steps(RunHere):
    """A `Compute` that counts its steps and stops after some."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.stop_after, self.taken = stop_after, 0

    def __call__(self, step: Callable[[], T], /) -> T:
        if self.taken == self.stop_after:
            raise Cancelled
        self.taken += 1
        return step()
