"""One file over HTTP; what a real server does to it is in `test_fetch.py` and `test_hub_files.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from shared.errors import Cancelled
from shared.fetching import transfer
from shared.fetching.transfer import LONGEST_WAIT, Transfer, pause, seconds_to_wait

CONTENT = bytes(range(200))


class LineBroke(Exception):
    pass


@dataclass
class Answer:
    status_code: int = 206
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes | Exception] = field(default_factory=list)

    def iter_raw(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def part_of(start: int, *chunks: bytes | Exception) -> Answer:
    return Answer(206, {"Content-Range": f"bytes {start}-199/200"}, list(chunks))


class Server:
    """Gives its answers one after the other."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.ranges: list[str] = []
        self.open = 0

    @contextmanager
    def __call__(self, headers: dict[str, str]) -> Iterator[Answer]:
        self.ranges.append(headers.get("Range", ""))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.open += 1
        try:
            yield answer
        finally:
            self.open -= 1


def bring(server: Server, part: Path, say: Any = lambda done: None) -> str:
    def refuse(answer: Any) -> None:
        raise PermissionError(answer.status_code)

    return Transfer(server, len(CONTENT), part, say, refuse, (LineBroke,)).run()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited for, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr(transfer, "pause", lambda seconds, look: waited.append(seconds))
    return waited


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


def test_in_one_piece(part: Path) -> None:
    told: list[int] = []
    assert bring(Server(Answer(200, {}, [CONTENT[:50], CONTENT[50:]])), part, told.append) == ""
    assert part.read_bytes() == CONTENT
    assert told == [0, 50, 200]


def test_it_goes_on_after_each_break_without_waiting(part: Path, waits: list[float]) -> None:
    server = Server(
        Answer(200, {}, [CONTENT[:60], LineBroke()]), part_of(60, CONTENT[60:61]), part_of(61, CONTENT[61:])
    )
    assert bring(server, part) == ""
    assert server.ranges == ["", "bytes=60-", "bytes=61-"]
    assert part.read_bytes() == CONTENT
    assert waits == []


def test_it_waits_longer_each_time_and_gives_up(part: Path, waits: list[float]) -> None:
    assert bring(Server(*[LineBroke("the line broke")] * 6), part) == "the line broke"
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_a_busy_server_says_how_long(part: Path, waits: list[float]) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    server = Server(
        Answer(429, {"Retry-After": "7"}), Answer(503, {"Retry-After": soon}), Answer(500), Answer(200, {}, [CONTENT])
    )
    assert bring(server, part) == ""
    assert waits[0] == 7
    assert 10 < waits[1] <= 20
    assert waits[2] == 2.0


def test_another_part_than_asked_for_is_not_taken(part: Path) -> None:
    part.write_bytes(CONTENT[:100])
    server = Server(part_of(90, CONTENT[90:]), Answer(200, {}, [CONTENT]))
    assert bring(server, part) == ""
    assert part.read_bytes() == CONTENT


def test_a_part_that_is_too_long_for_the_server_is_begun_anew(part: Path) -> None:
    part.write_bytes(b"x" * 150)
    assert bring(Server(Answer(416), Answer(200, {}, [CONTENT])), part) == ""
    assert part.read_bytes() == CONTENT


def test_no_more_than_the_size_is_kept(part: Path) -> None:
    assert bring(Server(Answer(200, {}, [CONTENT + b"more", b"and more"])), part) == ""
    assert part.read_bytes() == CONTENT


def test_other_refusals_are_for_the_caller(part: Path) -> None:
    with pytest.raises(PermissionError):
        bring(Server(Answer(403)), part)


def test_when_nobody_waits_any_more_the_connection_is_closed_and_the_part_kept(part: Path) -> None:
    def say(done: int) -> None:
        if done >= 50:
            raise Cancelled

    server = Server(Answer(200, {}, [CONTENT[:50], CONTENT[50:]]))
    with pytest.raises(Cancelled):
        bring(server, part, say)
    assert server.open == 0
    assert part.read_bytes() == CONTENT[:50]


# -- waiting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("5", 5),
        ("0", 0),
        ("3600", LONGEST_WAIT),
        ("9" * 400, LONGEST_WAIT),
        ("Wed, 21 Oct 2099 07:28:00 GMT", LONGEST_WAIT),
        ("Wed, 21 Oct 2099 07:28:00 -0000", LONGEST_WAIT),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 +999999", 0),
        ("²", 0),
        ("-3", 0),
        ("1.5", 0),
        ("soon", 0),
        ("", 0),
    ],
)
def test_retry_after(asked: str, seconds: float) -> None:
    assert seconds_to_wait({"Retry-After": asked}) == seconds


def test_without_a_header() -> None:
    assert seconds_to_wait({}) == 0


def test_a_date_soon() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=15), usegmt=True)
    assert 5 < seconds_to_wait({"Retry-After": soon}) <= 15


def test_a_wait_ends_when_nobody_waits_any_more() -> None:
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        pause(3600, look)
    pause(0, look)
    assert len(looks) == 2
