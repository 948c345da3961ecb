"""Prompts that were read before: the beginning that a new one shares with one of them is not computed again.

A conversation's next turn begins with all of the last one, few-shot prompts with the same examples. What is kept
belongs to the visitor who asked, so that nobody learns from the time an answer takes what somebody else has written.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

LEAST_TOKENS = 16
"""Fewer are computed sooner than they are found."""


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


M = TypeVar("M", bound=Sized)


class Prefixes(Generic[M]):
    """The least recently used are dropped beyond `most_bytes`, or beyond what is granted where that is less."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = self._granted = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], M] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def longest(self, owner: str, ids: Sequence[int]) -> tuple[int, M | None]:
        """How many of the ids the best match begins with, its last left over, and that match; (0, None) without one."""
        most, best = LEAST_TOKENS - 1, None
        with self._lock:
            for key in self._kept:
                if key[0] == owner and (length := common_length(key[1], ids, len(ids) - 1)) > most:
                    most, best = length, key
            if best is None:
                return 0, None
            self._kept.move_to_end(best)
            return most, self._kept[best]

    def room_for(self, nbytes: int) -> bool:
        """Whether so many bytes would be kept at all; to be asked before they are copied."""
        return nbytes <= self._room

    def keep(self, owner: str, ids: Sequence[int], memory: M) -> None:
        """Takes in what was read, in place of what is only its beginning."""
        key = (owner, tuple(ids))
        if len(ids) < LEAST_TOKENS:
            return
        with self._lock:
            if not self.room_for(memory.nbytes):
                return
            shorter = [k for k in self._kept if k[0] == owner and k[1] == key[1][: len(k[1])]]
            for old in shorter:
                self._nbytes -= self._kept.pop(old).nbytes
            self._drop_oldest(memory.nbytes)  # first, so that there is never more than may be
            self._kept[key] = memory
            self._nbytes += memory.nbytes

    def keep_at_most(self, nbytes: int) -> None:
        """Grants so many bytes from now on, and drops what is kept beyond."""
        with self._lock:
            self._granted = nbytes
            self._drop_oldest()

    @property
    def _room(self) -> int:
        return min(self.most_bytes, self._granted)

    def _drop_oldest(self, more: int = 0) -> None:
        while self._nbytes + more > self._room:
            self._nbytes -= self._kept.popitem(last=False)[1].nbytes


def common_length(some: Sequence[int], others: Sequence[int], most: int) -> int:
    """How many ids both begin with, at most `most`."""
    most = min(most, len(some), len(others))
    if tuple(some[:most]) == tuple(others[:most]):
        return most
    return next(i for i in range(most) if some[i] != others[i])
