"""The prefix cache: a new prompt that begins like an earlier one is not computed again from its start.

A conversation's next turn begins with all of the last one, few-shot prompts with the same examples. Entries belong to
the visitor who asked, so that nobody learns from the time an answer takes what somebody else has written.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

MIN_TOKENS = 16
"""Fewer are computed sooner than they are found."""


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


class PrefixCache(Generic[V]):
    """Drops the least recently used entries beyond `max_bytes`, or beyond the limit set since, if that is less."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = self._limit = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, tuple[int, ...]], V] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def longest(self, owner: str, ids: Sequence[int]) -> tuple[int, V | None]:
        """The entry that shares the longest prefix with `ids`, and the length of that prefix; (0, None) without one.

        The last of the ids is never part of the prefix, since its logits are wanted.
        """
        longest, best = MIN_TOKENS - 1, None
        with self._lock:
            for key in self._entries:
                if key[0] == owner and (length := common_length(key[1], ids, len(ids) - 1)) > longest:
                    longest, best = length, key
            if best is None:
                return 0, None
            self._entries.move_to_end(best)
            return longest, self._entries[best]

    def accepts(self, nbytes: int) -> bool:
        """Whether an entry of this size would be stored at all; worth asking before it is copied."""
        return nbytes <= self._capacity

    def store(self, owner: str, ids: Sequence[int], value: V) -> None:
        """Adds an entry, and removes those that are only its beginning."""
        key = (owner, tuple(ids))
        if len(ids) < MIN_TOKENS:
            return
        with self._lock:
            if not self.accepts(value.nbytes):
                return
            shorter = [k for k in self._entries if k[0] == owner and k[1] == key[1][: len(k[1])]]
            for old in shorter:
                self._nbytes -= self._entries.pop(old).nbytes
            self._drop_oldest(value.nbytes)  # first, so that the limit holds at every moment
            self._entries[key] = value
            self._nbytes += value.nbytes

    def limit(self, nbytes: int) -> None:
        """Stores at most so many bytes from now on, and drops entries beyond."""
        with self._lock:
            self._limit = nbytes
            self._drop_oldest()

    @property
    def _capacity(self) -> int:
        return min(self.max_bytes, self._limit)

    def _drop_oldest(self, more: int = 0) -> None:
        while self._nbytes + more > self._capacity:
            self._nbytes -= self._entries.popitem(last=False)[1].nbytes


def common_length(some: Sequence[int], others: Sequence[int], most: int) -> int:
    """How many ids both begin with, at most `most`."""
    most = min(most, len(some), len(others))
    if tuple(some[:most]) == tuple(others[:most]):
        return most
    return next(i for i in range(most) if some[i] != others[i])
