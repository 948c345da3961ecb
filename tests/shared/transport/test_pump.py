"""What of a request's events is shown, and when. Times are switched to "never" and "at once", so no test waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from shared.errors import Cancelled, InvalidInput
from shared.events import Done, Event, Loading, Partial, Queued, RunInfo, Running
from shared.serving.context import Context
from shared.serving.runtime import Runtime
from shared.transport import pump as pump_module
from shared.transport.pump import pump

RUN = RunInfo(checkpoint="tiny", revision="1", engine="fake")
NEVER = 3600.0
PATIENCE = 60


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what is waited for before an event is shown; all of it for ever unless given."""

    def show(*, partial: float = NEVER, waiting: float = NEVER, heartbeat: float = NEVER) -> None:
        monkeypatch.setattr(pump_module, "MIN_UPDATE_INTERVAL", partial)
        monkeypatch.setattr(pump_module, "QUIET_SECONDS", waiting)
        monkeypatch.setattr(pump_module, "HEARTBEAT", heartbeat)

    show()
    return show


def shown(events: Iterator[Event], on_each: Callable[[Event], Any] = lambda event: None) -> list[Event]:
    """What is yielded of a task's events."""

    async def collect() -> list[Event]:
        found = []
        with ThreadPoolExecutor(1) as threads:
            pumped = pump(events, threading.Event(), threads)
            async for event in pumped:
                found.append(event)
                on_each(event)
        return found

    return asyncio.run(collect())


def test_a_quick_request_is_one_message(show: Callable[..., None]) -> None:
    done = Done("answer", RUN)
    assert shown(iter([Queued(1), Loading("tiny", "reading", 1, 2), Running("translating"), done])) == [done]


def test_a_slow_one_is_told_what_it_waits_for(show: Callable[..., None]) -> None:
    show(waiting=0.0, partial=0.0)
    seen = threading.Event()

    def slow() -> Iterator[Event]:
        yield Queued(2)
        assert seen.wait(PATIENCE)
        yield Done("answer", RUN)

    assert shown(slow(), lambda event: seen.set()) == [Queued(2), Done("answer", RUN)]


def test_the_first_part_comes_at_once_and_the_others_not_before_it_was_read(show: Callable[..., None]) -> None:
    first = threading.Event()

    def tokens() -> Iterator[Event]:
        yield Partial(0)
        assert first.wait(PATIENCE), "the first token was held back"
        for number in range(1, 1000):
            yield Partial(number)
        yield Done("all", RUN)

    assert shown(tokens(), lambda event: first.set()) == [Partial(0), Done("all", RUN)]


def test_without_a_pause_each_part_that_is_waited_for_is_shown(show: Callable[..., None]) -> None:
    show(partial=0.0)
    read = threading.Semaphore(0)

    def tokens() -> Iterator[Event]:
        for number in range(20):
            yield Partial(number)
            assert read.acquire(timeout=PATIENCE)
        yield Done("all", RUN)

    assert shown(tokens(), lambda event: read.release()) == [*(Partial(n) for n in range(20)), Done("all", RUN)]


def test_a_part_that_had_to_wait_is_shown_when_its_time_has_come(show: Callable[..., None]) -> None:
    show(partial=0.01)
    second = threading.Event()

    def tokens() -> Iterator[Event]:
        yield Partial(0)
        yield Partial(1)
        assert second.wait(PATIENCE), "the second token never came"
        yield Done("all", RUN)

    found = shown(tokens(), lambda event: second.set() if event == Partial(1) else None)
    assert found[-2:] == [Partial(1), Done("all", RUN)]


def test_what_was_made_before_a_failure_is_shown_before_it(show: Callable[..., None]) -> None:
    found: list[Event] = []
    first = threading.Event()

    def failing() -> Iterator[Event]:
        yield Partial(0)
        assert first.wait(PATIENCE)
        yield Partial(1)
        raise InvalidInput("no")

    def seen(event: Event) -> None:
        found.append(event)
        first.set()

    with pytest.raises(InvalidInput):
        shown(failing(), seen)
    assert found == [Partial(0), Partial(1)]


@pytest.mark.parametrize("error", [Cancelled(), InvalidInput("no"), KeyError("stray")])
def test_what_the_task_raises_is_raised(show: Callable[..., None], error: Exception) -> None:
    def failing() -> Iterator[Event]:
        yield Queued(1)
        raise error

    with pytest.raises(type(error)):
        shown(failing())


def test_the_heartbeat_repeats_the_last_event_or_says_that_something_runs(show: Callable[..., None]) -> None:
    show(heartbeat=0.01)
    beats = threading.Semaphore(0)

    def silent() -> Iterator[Event]:
        for _ in range(3):
            assert beats.acquire(timeout=PATIENCE)
        yield Partial("so far")
        for _ in range(3):
            assert beats.acquire(timeout=PATIENCE)
        yield Done("answer", RUN)

    found = shown(silent(), lambda event: beats.release())
    parts = found.index(Partial("so far"))
    assert parts >= 3
    assert found[:parts] == [Running()] * parts
    assert found[parts:-1] == [Partial("so far")] * (len(found) - 1 - parts)
    assert len(found) - 1 - parts >= 3


def test_who_leaves_cancels(show: Callable[..., None]) -> None:
    context = Context(cast(Runtime, None))

    def endless() -> Iterator[Event]:
        number = 0
        while not context.cancel.is_set():
            number += 1
            yield Partial(number)

    async def leave() -> None:
        with ThreadPoolExecutor(1) as threads:
            pumped = pump(endless(), context.cancel, threads)
            await anext(pumped)
            await pumped.aclose()
            assert context.cancel.is_set()

    asyncio.run(leave())


def test_the_loop_is_not_woken_for_what_it_would_not_show(
    show: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    first = threading.Event()
    monkeypatch.setattr(pump_module, "wake", lambda sleeper, real=pump_module.wake: calls.append(1) or real(sleeper))

    def tokens() -> Iterator[Event]:
        yield Partial(0)
        assert first.wait(PATIENCE)
        for number in range(5000):
            yield Partial(number)
        yield Done("all", RUN)

    shown(tokens(), lambda event: first.set())
    assert len(calls) < 10
