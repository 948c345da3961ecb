"""Cancelled, disconnected and queued requests: the computation ends, and everything it held is given back.

No test here depends on how fast the machine is: the steps of the computation wait for the event under test.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from gradio_client import Client

from shared.errors import Cancelled
from shared.scheduling.lane import Timing
from shared.serving.runtime import Runtime
from shared.suite import Suite

PATIENCE = 60
"""Seconds after which a test fails that waits for something that should happen at once."""


class Steps:
    """Counts the steps that reach the compute lane, and holds those after the `free`-th until the cancel signal.

    With `until`, it holds them until that event is set instead.
    """

    def __init__(self, runtime: Runtime, free: int = 0, until: threading.Event | None = None) -> None:
        self.begun = 0
        self.never_cancelled = False
        self._free = free
        self._until = until
        self._submit = runtime.lane.submit

    def submit(self, visitor: str, kernel: Any, item: Any, cancel: threading.Event, timing: Timing, **how: Any) -> Any:
        return self._submit(visitor, Held(self, kernel, cancel), item, cancel, timing, **how)

    def hold(self, cancel: threading.Event) -> None:
        if self.begun >= self._free and not (self._until or cancel).wait(PATIENCE):
            self.never_cancelled = True
        if cancel.is_set():
            raise Cancelled
        self.begun += 1


class Held:
    """A kernel whose steps are counted and held."""

    def __init__(self, steps: Steps, kernel: Any, cancel: threading.Event) -> None:
        self._steps, self._kernel, self._cancel = steps, kernel, cancel
        self.can_join, self.most_cores = kernel.can_join, kernel.most_cores

    def __call__(self, items: Any) -> Any:
        self._steps.hold(self._cancel)
        return self._kernel(items)


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it never came about that {what}"
        time.sleep(0.02)


def at_rest(suite: Suite) -> bool:
    """Whether nothing is admitted, queued or borrowed."""
    borrows = sum(row["borrows"] for row in suite.runtime.cache.report()["checkpoints"])
    return suite.runtime.admission.report() == {"running": 0, "queued": 0} and not borrows


def check_usable(suite: Suite) -> None:
    # A client of its own: one whose job was just cancelled may take the end of that job's stream for the next one's.
    assert Client(suite.url, verbose=False).predict("Good morning.", api_name="/translate")[0] == "Bom dia."


@pytest.fixture
def client(suite: Suite) -> Client:
    return Client(suite.url, verbose=False)


@pytest.fixture(autouse=True)
def rested(suite: Suite, client: Client) -> None:
    """Weights in memory, and nothing under way from another test."""
    client.predict("Good morning.", api_name="/translate")
    client.predict("Hello", api_name="/next_token")
    eventually(lambda: at_rest(suite), "the suite is at rest")


def test_a_cancelled_job_stops_computing(suite: Suite, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(suite.runtime, free=5)
    monkeypatch.setattr(suite.runtime.lane, "submit", steps.submit)
    job = client.submit("Once upon a time", max_new_tokens=1000, api_name="/generate")
    eventually(lambda: steps.begun == 5 and any(text for text, _ in job.outputs()), "some text has come")
    job.cancel()
    eventually(lambda: at_rest(suite), "the cancelled request has given everything back")
    assert not steps.never_cancelled
    assert steps.begun == 5
    monkeypatch.undo()
    check_usable(suite)


def asked_as_the_page_does(suite: Suite) -> str:
    functions = {d["api_name"]: d["id"] for d in httpx.get(f"{suite.url}config").json()["dependencies"]}
    body = {
        "data": ["Once upon a time", 1000, False, 0.7, 50, 0.95, 1.0, 0, ""],
        "fn_index": functions["generate"],
        "session_hash": uuid.uuid4().hex,
    }
    httpx.post(f"{suite.url}gradio_api/queue/join", json=body).raise_for_status()
    return f"queue/data?session_hash={body['session_hash']}"


def asked_by_plain_http(suite: Suite) -> str:
    body = {"prompt": "Once upon a time", "max_new_tokens": 1000}
    asked = httpx.post(f"{suite.url}gradio_api/call/v2/generate", json=body).json()
    return f"call/generate/{asked['event_id']}"


@pytest.mark.parametrize("ask", [asked_as_the_page_does, asked_by_plain_http])
def test_one_who_disconnects_stops_the_computation(
    suite: Suite, ask: Callable[[Suite], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(suite.runtime, free=5)
    monkeypatch.setattr(suite.runtime.lane, "submit", steps.submit)
    with httpx.stream("GET", f"{suite.url}gradio_api/{ask(suite)}", timeout=PATIENCE) as stream:
        for line in stream.iter_lines():
            if "generating" in line:
                break
    # Leaving the block closed the connection without reading on.
    eventually(lambda: at_rest(suite), "the request without a client has given everything back")
    assert not steps.never_cancelled
    assert steps.begun <= 5
    monkeypatch.undo()
    check_usable(suite)


def test_a_request_cancelled_in_the_queue_leaves_it(
    suite: Suite, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = suite.settings.max_running
    go = threading.Event()
    steps = Steps(suite.runtime, until=go)
    monkeypatch.setattr(suite.runtime.lane, "submit", steps.submit)
    running = [client.submit("Good morning.", api_name="/translate") for _ in range(places)]
    try:
        eventually(lambda: suite.runtime.admission.report()["running"] == places, "all places are taken")
        waiting = client.submit("Once upon a time", api_name="/generate")
        eventually(lambda: any(run.get("place") == 1 for _, run in waiting.outputs()), "the request knows its place")
        waiting.cancel()
        eventually(lambda: suite.runtime.admission.report()["queued"] == 0, "the cancelled request left the queue")
        assert suite.runtime.admission.report()["running"] == places
        assert steps.begun == 0
    finally:
        go.set()
    assert [job.result(PATIENCE)[0] for job in running] == ["Bom dia."] * places
    eventually(lambda: at_rest(suite), "the suite is at rest")
    assert suite.traffic.report()["generate"]["cancelled"] >= 1


def test_cancelled_requests_leave_no_threads(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancel_one() -> None:
        steps = Steps(suite.runtime, free=2)
        monkeypatch.setattr(suite.runtime.lane, "submit", steps.submit)
        job = Client(suite.url, verbose=False).submit("Once upon a time", max_new_tokens=1000, api_name="/generate")
        eventually(lambda: steps.begun == 2, "the computation has begun")
        job.cancel()
        eventually(lambda: at_rest(suite), "the cancelled request has given everything back")
        assert not steps.never_cancelled
        monkeypatch.undo()

    def threads_of_ours() -> int:
        return sum(thread.name.startswith(("request", "lane", "load")) for thread in threading.enumerate())

    cancel_one()
    before = threads_of_ours()
    for _ in range(6):
        cancel_one()
    # A thread that has just ended a request may not be back in the pool when the next one begins.
    assert threads_of_ours() <= before + 2
    check_usable(suite)
