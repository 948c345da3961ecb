"""One training at a time on a machine: who comes later waits for its turn, first come, first served.

A ticket is a file that its process holds locked. A process that dies lets go of it, so the line never stands still.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from finetune.run_folder import Run, runs_folder
from shared.settings import Settings

POLL_SECONDS = 0.5
"""Seconds between two looks at the line."""
GRACE_SECONDS = 2.0
"""Seconds for which a ticket counts as held although it is not locked yet: its process is just taking it."""


@contextlib.contextmanager
def turn(run: Run, settings: Settings, waiting: Callable[[list[str]], None]) -> Iterator[None]:
    """Waits until no run that came earlier is left, calling `waiting` with their names at each look.

    What `waiting` raises ends the wait.
    """
    line = queue_folder(settings)
    line.mkdir(parents=True, exist_ok=True)
    path = line / f"{time.time_ns():020d}-{run.folder.name}"
    ticket = FileLock(path)
    ticket.acquire()
    try:
        while earlier := [other for other in tickets(settings) if other < path]:
            waiting([run_name(other) for other in earlier])
            time.sleep(POLL_SECONDS)
        # Tickets make the order, by a clock that may be set; that there is one is not left to them.
        with FileLock(line / "at-work", poll_interval=POLL_SECONDS):
            yield
    finally:
        ticket.release()
        _remove(path)


def queued_runs(settings: Settings) -> list[str]:
    """Names of the folders of the runs that work or wait, in the order of their turns."""
    return [run_name(path) for path in tickets(settings)]


def tickets(settings: Settings) -> list[Path]:
    """The tickets that processes hold, the earliest first. Removes those of dead ones."""
    return [path for path in sorted(queue_folder(settings).glob("[0-9]*-*")) if _is_held(path)]


def run_name(ticket: Path) -> str:
    return ticket.name.partition("-")[2]


def queue_folder(settings: Settings) -> Path:
    return runs_folder(settings) / "line"


def _is_held(path: Path) -> bool:
    if 0 <= time.time() - int(path.name.partition("-")[0]) / 1e9 < GRACE_SECONDS:
        return True
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    _remove(path)
    return False


def _remove(ticket: Path) -> None:
    with contextlib.suppress(OSError):  # somebody may be looking at it, which Windows minds
        ticket.unlink(missing_ok=True)
