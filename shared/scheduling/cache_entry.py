"""Entries of the model cache: checkpoints and adapters, borrowed or idle, and how much their engines may cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.engines.protocols import Engine


class Loadable(Protocol):
    """A checkpoint, or an adapter, which has an entry of its own beside that of its base."""

    @property
    def id(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def folder(self) -> str:
        """Its key."""
        ...


@dataclass(eq=False)
class Entry:
    """A checkpoint in memory, or on its way there. All fields are guarded by the cache's lock."""

    checkpoint: Loadable
    nbytes: int
    """Bytes of weights: reserved while loading, measured afterwards."""
    engine: Engine | None = None
    error: BaseException | None = None
    borrows: int = 0
    """Requests that use it or wait for it."""
    pinned: bool = False
    last_used: float = 0.0
    loads_seconds: float = 0.0
    progress: tuple[str, int, int] = ("waiting for the disk", 0, 0)
    hits: int = 0
    granted: int = 0
    """Most bytes that the engine may cache."""

    @property
    def bytes_held(self) -> int:
        """Bytes of the weights and of the engine's cache."""
        return self.nbytes + (self.engine.cached_bytes if self.engine is not None else 0)

    def report(self, now: float) -> dict[str, Any]:
        """Its row in the cache's report."""
        return {
            "checkpoint": self.checkpoint.id,
            "revision": self.checkpoint.revision,
            "state": "loaded" if self.engine is not None else "loading",
            "engine": self.engine.name if self.engine is not None else self.checkpoint.engine,
            "bytes": self.bytes_held,
            "borrows": self.borrows,
            "pinned": self.pinned,
            "hits": self.hits,
            "seconds_since_use": round(now - self.last_used, 1) if self.last_used else None,
            "seconds_to_load": round(self.loads_seconds, 2),
        }


@dataclass
class Borrowed:
    """A checkpoint on loan. Give it back with `close()` or at the end of a `with` block."""

    entry: Entry
    engine: Any
    loaded: bool
    """Whether the weights were in memory before this request."""
    _give_back: Callable[[Entry], None]
    _open: bool = field(default=True)

    def close(self) -> None:
        if self._open:
            self._open = False
            self.engine = None
            self._give_back(self.entry)

    def __enter__(self) -> Borrowed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def share(entries: Iterable[Entry], free: int) -> None:
    """Grants the engines `free` bytes for their caches, the most recently used engine first. The grants never add up to
    more, so an engine can cache at any time without asking.
    """
    grants: list[tuple[Entry, Engine, int]] = []
    for entry in sorted(entries, key=lambda e: e.last_used, reverse=True):
        if entry.engine is not None:
            grants.append((entry, entry.engine, min(entry.engine.max_cached_bytes, max(0, free))))
            free -= grants[-1][2]
    # Some grants shrink before others grow: an engine may cache something in between.
    for entry, engine, grant in grants:
        engine.limit_cache(min(grant, entry.granted))
    for entry, engine, grant in grants:
        engine.limit_cache(grant)
        entry.granted = grant


def megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.0f} MB"
