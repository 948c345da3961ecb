"""`Endpoint.run`: events, counts, limits and stored answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shared.errors import Busy, Cancelled, InvalidInput, MemoryRefused, SuiteError
from shared.events import Done, Event, Queued, RunInfo, Running
from shared.serving.answers import Answers
from shared.serving.context import Context
from shared.serving.endpoint import Endpoint, collect
from shared.serving.requests import Deterministic, Text
from shared.serving.runtime import Runtime
from shared.serving.traffic import Traffic
from shared.settings import Settings

TINY = SimpleNamespace(id="tiny", revision="1")
CATALOG = type("Catalog", (list,), {"why_not": lambda self, checkpoint, named: ""})([TINY])
RUNTIME = cast(Runtime, SimpleNamespace(settings=Settings(), elsewhere=None, catalog=CATALOG, adapters=()))
RUN = RunInfo(checkpoint="tiny", revision="1", engine="fake", seconds_running=1.5)


class Echo(Deterministic):
    text: Text
    times: int = 1


@dataclass
class Said:
    text: str

    def outputs(self) -> tuple[Any, ...]:
        return (self.text,)


def echo(request: Echo, context: Context) -> Iterator[Event]:
    """Says it again."""
    yield Queued(1)
    yield Running("saying")
    yield Done(Said(request.text * request.times), RUN)


ENDPOINT = Endpoint(echo, Echo, {"text": str})


def failing(error: BaseException) -> Endpoint:
    def fail(request: Echo, context: Context) -> Iterator[Event]:
        yield Running("saying")
        raise error

    return Endpoint(fail, Echo, {"text": str})


def visitor(name: str = "1.2.3.4/one", *, admin: bool = False) -> Context:
    return Context(RUNTIME, name, admin)


def ask(
    traffic: Traffic, context: Context | None = None, endpoint: Endpoint[Any] = ENDPOINT, **values: Any
) -> list[Event]:
    return list(endpoint.run({"text": "hey", **values}, context or visitor(), traffic))


def done(events: list[Event]) -> Done:
    (found,) = (event for event in events if isinstance(event, Done))
    return found


def test_name_and_documentation_are_the_functions() -> None:
    assert ENDPOINT.name == "echo"
    assert ENDPOINT.summary == "Says it again."


def test_events_pass_in_their_order_and_done_is_counted() -> None:
    traffic = Traffic()
    events = ask(traffic, times=2)
    assert [type(event) for event in events] == [Queued, Running, Done]
    assert done(events).result.text == "heyhey"
    assert not done(events).run.cached
    assert traffic.outcomes == {("echo", "done"): 1}


def test_collect_gives_the_result_and_it_counts_as_done() -> None:
    traffic = Traffic()
    assert collect(ENDPOINT.run({"text": "hey"}, visitor(), traffic)).result.text == "hey"
    assert traffic.outcomes == {("echo", "done"): 1}


def test_invalid_input_never_reaches_the_task() -> None:
    traffic = Traffic()
    wrong: list[dict[str, Any]] = [{"text": " "}, {"text": "x", "times": "often"}, {"text": "x", "unknown": 1}]
    for values in wrong:
        with pytest.raises(InvalidInput) as caught:
            ask(traffic, endpoint=failing(AssertionError("the task ran")), **values)
        assert caught.value.field in values
    assert traffic.outcomes == {("fail", "InvalidInput"): 3}


def test_an_error_written_for_visitors_passes_as_it_is() -> None:
    traffic, error = Traffic(), MemoryRefused("too big", field="model")
    with pytest.raises(MemoryRefused) as caught:
        ask(traffic, endpoint=failing(error))
    assert caught.value is error
    assert traffic.outcomes == {("fail", "MemoryRefused"): 1}


@pytest.mark.parametrize("error", [RuntimeError("visitor's secret"), KeyError("secret"), RecursionError("secret")])
def test_an_unexpected_error_becomes_ours_without_its_text(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    traffic = Traffic()
    with caplog.at_level(logging.ERROR), pytest.raises(SuiteError) as caught:
        ask(traffic, endpoint=failing(error))
    assert type(caught.value) is SuiteError
    assert "secret" not in str(caught.value)
    assert "our fault" in str(caught.value)
    assert "secret" in caplog.text  # the operator sees it in full
    assert "Traceback" in caplog.text
    assert traffic.outcomes == {("fail", "failed"): 1}


def test_running_out_of_memory_is_said_plainly() -> None:
    traffic = Traffic()
    with pytest.raises(SuiteError, match="not enough memory"):
        ask(traffic, endpoint=failing(MemoryError()))
    assert traffic.outcomes == {("fail", "failed"): 1}


def test_cancelled_passes_and_is_counted() -> None:
    traffic = Traffic()
    with pytest.raises(Cancelled):
        ask(traffic, endpoint=failing(Cancelled()))
    assert traffic.outcomes == {("fail", "cancelled"): 1}


def test_a_consumer_that_leaves_early_is_counted_as_cancelled_and_the_task_is_closed() -> None:
    traffic, closed = Traffic(), []

    def slow(request: Echo, context: Context) -> Iterator[Event]:
        try:
            for _ in range(3):
                yield Running("saying")
        finally:
            closed.append(True)

    events = Endpoint(slow, Echo, {"text": str}).run({"text": "x"}, visitor(), traffic)
    next(events)
    cast(Any, events).close()
    assert closed == [True]
    assert traffic.outcomes == {("slow", "cancelled"): 1}


def test_the_report_has_a_row_for_each_endpoint() -> None:
    traffic = Traffic()
    traffic.count("echo", "done", 1.5)
    traffic.count("echo", "done", 2.0)
    traffic.count("echo", "Busy", 0.25)
    traffic.count("other", "failed", 1.0)
    assert traffic.report() == {
        "echo": {"seconds": 3.75, "done": 2, "Busy": 1},
        "other": {"seconds": 1.0, "failed": 1},
    }


# -- rate limit ------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now=1000.0)


@pytest.fixture
def limited(clock: SimpleNamespace) -> Traffic:
    """Three requests a minute."""
    return Traffic(3, clock=cast(Callable[[], float], lambda: clock.now))


def test_the_limit_holds_for_a_minute(limited: Traffic, clock: SimpleNamespace) -> None:
    ask(limited)
    clock.now += 20
    ask(limited)
    ask(limited)
    with pytest.raises(Busy, match="3 requests a minute are allowed; try again in 40 s"):
        ask(limited)
    clock.now += 39
    with pytest.raises(Busy):
        ask(limited)
    clock.now += 1
    ask(limited)
    with pytest.raises(Busy):
        ask(limited)
    assert limited.outcomes == {("echo", "done"): 4, ("echo", "Busy"): 3}


def test_the_limit_is_of_the_address_not_of_the_tab(limited: Traffic) -> None:
    for tab in "abc":
        ask(limited, visitor(f"1.2.3.4/{tab}"))
    with pytest.raises(Busy):
        ask(limited, visitor("1.2.3.4/d"))
    ask(limited, visitor("1.2.3.5/a"))


def test_the_admin_is_not_limited(limited: Traffic) -> None:
    for _ in range(10):
        ask(limited, visitor(admin=True))


def test_answers_that_are_kept_are_outside_the_limit(clock: SimpleNamespace) -> None:
    limited = Traffic(3, clock=lambda: clock.now, answers=Answers(10**6))
    limited.answers.expect("echo", Echo(text="hey"))
    for _ in range(10):
        ask(limited)
        ask(limited, text="my own")
    ask(limited, text="other")
    with pytest.raises(Busy):
        ask(limited, text="another")
    assert done(ask(limited)).run.cached
    assert limited.report()["echo"].items() >= {"done": 3, "cached": 19, "Busy": 1}.items()


def test_zero_is_no_limit(clock: SimpleNamespace) -> None:
    traffic = Traffic(0, clock=lambda: clock.now)
    for _ in range(200):
        ask(traffic)


def test_addresses_are_forgotten_before_they_fill_the_memory(limited: Traffic) -> None:
    for number in range(10_050):
        limited.admit(visitor(f"{number}/x"))
    assert len(limited._recent) <= 10_000


def test_an_ending_without_a_result_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="without a result"):
        collect(iter([Queued(1)]))
