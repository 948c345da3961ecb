"""Many requests at once, and little memory: none is lost, all are right, and visitors take turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from shared.settings import Settings
from shared.suite import Suite, serve

PATIENCE = 120

CHEAP: list[tuple[str, str]] = [
    ("/translate", "Good morning."),
    ("/zero_shot", "The striker scored twice."),
    ("/sentiment", "I love this phone."),
    ("/next_token", "The capital of France is"),
    ("/summarize", "The bridge is closed. It will open on Friday."),
]


class Gate:
    """Holds all computation until it is opened, and notes whose requests are admitted, in their order."""

    def __init__(self, suite: Suite) -> None:
        self.open = threading.Event()
        self.admitted: list[str] = []
        self._visitor_of: dict[object, str] = {}
        queue = suite.runtime.admission._queue
        self._submit, self._put, self._pop = suite.runtime.lane.submit, queue.put, queue.pop

    def submit(self, *what: Any, **how: Any) -> Any:
        assert self.open.wait(PATIENCE)
        return self._submit(*what, **how)

    def put(self, visitor: str, ticket: object) -> None:
        self._visitor_of[ticket] = visitor
        self._put(visitor, ticket)

    def pop(self) -> object:
        ticket = self._pop()
        self.admitted.append(self._visitor_of[ticket])
        return ticket


@pytest.fixture
def gate(suite: Suite, client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A closed gate in a suite whose weights are in memory."""
    for name, text in CHEAP:
        client.predict(text, api_name=name)
    gate = Gate(suite)
    monkeypatch.setattr(suite.runtime.lane, "submit", gate.submit)
    monkeypatch.setattr(suite.runtime.admission._queue, "put", gate.put)
    monkeypatch.setattr(suite.runtime.admission._queue, "pop", gate.pop)
    yield gate
    gate.open.set()


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"it never came about that {what}"
        time.sleep(0.02)


def test_fifty_requests_at_once(suite: Suite, client: Client, gate: Gate) -> None:
    gate.open.set()
    expected = {name: client.predict(text, api_name=name)[0] for name, text in CHEAP}
    gate.open.clear()
    visitors = [Client(suite.url, verbose=False) for _ in range(5)]
    jobs = [
        (name, visitor.submit(text, api_name=name)) for _ in range(2) for visitor in visitors for name, text in CHEAP
    ]
    assert len(jobs) == 50
    places = suite.settings.max_running
    eventually(
        lambda: suite.runtime.admission.report() == {"running": places, "queued": 50 - places},
        "all fifty are running or queued",
    )
    eventually(
        lambda: sum(any(run.get("status") == "queued" for *_, run in job.outputs()) for _, job in jobs) >= 50 - places,
        "those in the queue were told so",
    )
    gate.open.set()
    for name, job in jobs:
        assert job.result(PATIENCE)[0] == expected[name]
    told = [[run["place"] for *_, run in job.outputs() if run.get("status") == "queued"] for _, job in jobs]
    assert max(max(seen, default=0) for seen in told) > 30
    assert all(min(seen, default=1) >= 1 for seen in told)
    eventually(lambda: suite.runtime.admission.report() == {"running": 0, "queued": 0}, "the suite is at rest")


def test_visitors_take_turns(suite: Suite, gate: Gate) -> None:
    greedy, modest = Client(suite.url, verbose=False), Client(suite.url, verbose=False)
    many = [greedy.submit("Good morning.", api_name="/translate") for _ in range(20)]
    places = suite.settings.max_running
    eventually(lambda: suite.runtime.admission.report()["queued"] == 20 - places, "the greedy visitor's wait")
    one = modest.submit("Good night.", api_name="/translate")
    eventually(lambda: suite.runtime.admission.report()["queued"] == 21 - places, "the modest visitor waits")
    gate.open.set()
    assert one.result(PATIENCE)[0]
    for job in many:
        assert job.result(PATIENCE)[0] == "Bom dia."
    turns = [visitor.endswith(modest.session_hash) for visitor in gate.admitted]
    # Its turn comes after those already running and one more, not after the twelve that were queued before it.
    assert len(turns) == 21
    assert turns.index(True) <= places + 1


@pytest.fixture(scope="module")
def small() -> Iterator[Suite]:
    """A suite with memory for one small checkpoint at a time: the encoder takes 91 MB, a translator up to 68 MB."""
    running = serve(Settings(answer_cache=0, port=0, memory_budget=100_000_000, warm_examples=False), block=False)
    yield running
    running.close()


def test_a_small_budget_is_kept_by_turns(small: Suite) -> None:
    client = Client(small.url, verbose=False)
    held: list[set[str]] = []
    for _ in range(2):
        assert client.predict("The striker scored twice.", api_name="/zero_shot")[0]["label"] == "sports"
        held.append({row["checkpoint"] for row in small.runtime.cache.report()["checkpoints"]})
        assert client.predict("Good morning.", api_name="/translate")[0] == "Bom dia."
        held.append({row["checkpoint"] for row in small.runtime.cache.report()["checkpoints"]})
        assert small.runtime.cache.bytes_held() <= 100_000_000
    encoder, translator = {"all-MiniLM-L6-v2"}, {"firefox-translations-en-pt"}
    assert held == [encoder, translator, encoder, translator]
    assert small.runtime.cache.report()["evictions"] == 3


def test_requests_at_once_for_more_than_the_budget_all_get_an_answer(small: Suite) -> None:
    visitors = [Client(small.url, verbose=False) for _ in range(2)]
    jobs = [
        (name, visitor.submit(text, api_name=name)) for visitor in visitors for name, text in [*CHEAP[:2], *CHEAP[:2]]
    ]
    answers = {name: job.result(PATIENCE)[0] for name, job in jobs}
    assert answers["/translate"] == "Bom dia."
    assert answers["/zero_shot"]["label"] == "sports"
    assert small.runtime.cache.bytes_held() <= 100_000_000


def test_a_checkpoint_over_the_budget_is_refused_with_both_sizes(small: Suite) -> None:
    client = Client(small.url, verbose=False)
    before = small.runtime.cache.report()["misses"]
    with pytest.raises(AppError, match=r"SmolLM2-135M-Instruct needs \d+ MB and the memory budget is 100 MB"):
        client.predict("Once upon a time", api_name="/generate")
    assert small.runtime.cache.report()["misses"] == before
    assert client.predict("Good morning.", api_name="/translate")[0] == "Bom dia."
