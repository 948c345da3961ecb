"""Downloads one file over HTTP, and resumes after a broken connection or an earlier run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Protocol

ATTEMPTS = 6
"""Tries in a row without a new byte after which a transfer fails."""
BACKOFF = 0.5
"""Seconds before the second try; doubled for each further one."""
LONGEST_WAIT = 30.0
"""Most seconds to wait because a server asks for it (`Retry-After`)."""
NAP = 0.2
"""Seconds between two checks, during a wait, whether any caller still wants the file."""


class Answer(Protocol):
    """What httpx gives for a streamed request."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def iter_raw(self) -> Iterator[bytes]: ...


class Transfer:
    """Appends to `part` until it has `size` bytes."""

    def __init__(
        self,
        ask: Callable[[dict[str, str]], AbstractContextManager[Answer]],
        size: int,
        part: Path,
        say: Callable[[int], None],
        refuse: Callable[[Answer], None],
        broken: tuple[type[Exception], ...],
    ) -> None:
        """`ask(headers)` opens a request; `say` is told the bytes that are here, and may raise to end it all; `refuse`
        raises for an answer that another try cannot mend; `broken` are the client's exceptions for a connection that
        failed.
        """
        self._ask, self._size, self._part = ask, size, part
        self._say, self._refuse, self._broken = say, refuse, broken
        self._asked_to_wait = 0.0

    def run(self) -> str:
        """Returns "" when the file is as long as it should be, else why it is not after `ATTEMPTS` fruitless tries."""
        self._say(self.have)
        fruitless, cause = 0, ""
        while (before := self.have) < self._size:
            if fruitless == ATTEMPTS:
                return cause or "nothing came"
            if fruitless:
                pause(max(BACKOFF * 2 ** (fruitless - 1), self._asked_to_wait), lambda: self._say(self.have))
            try:
                cause = self._go_on()
            except self._broken as error:
                cause = str(error) or type(error).__name__
            fruitless = 0 if self.have > before else fruitless + 1
        return ""

    @property
    def have(self) -> int:
        return self._part.stat().st_size if self._part.is_file() else 0

    def _go_on(self) -> str:
        """One request for what is missing; returns why it may be worth another one."""
        have = self.have
        self._asked_to_wait = 0.0
        with self._ask({"Range": f"bytes={have}-"} if have else {}) as response:
            status = response.status_code
            if status in (408, 416, 429) or status >= 500:
                if status == 416:
                    self._part.unlink(missing_ok=True)  # the server's file is shorter than what is here
                self._asked_to_wait = seconds_to_wait(response.headers)
                return f"the server answered {status}"
            if status not in (200, 206):
                self._refuse(response)
            goes_on = status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if status == 206 and not goes_on:
                self._part.unlink(missing_ok=True)
                return "the server sent another part of the file than the one asked for"
            done = have if goes_on else 0  # 200: the server does not know ranges and starts over
            with self._part.open("ab" if goes_on else "wb") as file:
                # Chunks as they arrive: an incomplete chunk of a fixed size would be lost when the connection breaks.
                for chunk in response.iter_raw():
                    done += file.write(chunk[: self._size - done])
                    self._say(done)
                    if done == self._size:
                        break
        return "the answer ended early"


def seconds_to_wait(headers: Mapping[str, str]) -> float:
    """What `Retry-After` asks for, in seconds or as a date (RFC 9110, 10.2.3); at most `LONGEST_WAIT`, 0 without it."""
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return min(float(asked), LONGEST_WAIT)
    try:
        until = parsedate_to_datetime(asked)
    except (ValueError, OverflowError):
        return 0.0
    if until.tzinfo is None:  # of "-0000", which says nothing of the zone; HTTP's dates are in UTC
        until = until.replace(tzinfo=UTC)
    return max(0.0, min((until - datetime.now(UTC)).total_seconds(), LONGEST_WAIT))


def pause(seconds: float, look: Callable[[], None]) -> None:
    """Sleeps, but calls `look` now and then, which raises where nobody waits any more."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        look()
        time.sleep(min(left, NAP))
