"""Load: some clients, each with a session of its own, ask as fast as they are answered; bounded in count and time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gradio_client import Client

from benchmarks.stats import percentile

CALL_SECONDS = 300.0
"""A call that takes longer counts as failed."""
LOOK_SECONDS = 0.25
"""Between two looks at a server's memory."""

Inputs = Callable[[int], dict[str, Any]]
"""Number of the request → its inputs by name."""


@dataclass
class Burst:
    """What came of one burst of load."""

    latencies: list[float] = field(default_factory=list)
    answers: dict[int, Any] = field(default_factory=dict)
    """By the number of the request."""
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """From the first request to the last answer."""
    peak: int = 0
    """Most bytes the server held meanwhile, where that was watched."""

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def p(self, share: float) -> float:
        return percentile(self.latencies, share) if self.latencies else float("nan")

    def tokens_per_second(self, tokens: Callable[[Any], int]) -> float:
        """New tokens of all answers by the seconds of the whole burst."""
        return sum(map(tokens, self.answers.values())) / self.seconds if self.seconds else 0.0


def connect(url: str, *, ssl_verify: bool = True) -> Client:
    """A client with a session of its own, that tells nobody about it."""
    return Client(url, verbose=False, analytics_enabled=False, download_files=False, ssl_verify=ssl_verify)


def call(client: Client, api_name: str, inputs: dict[str, Any]) -> Any:
    return client.submit(api_name=api_name, **inputs).result(timeout=CALL_SECONDS)


def first_output(client: Client, api_name: str, inputs: dict[str, Any]) -> tuple[float, float]:
    """Seconds until the first output with something in it, and until the last."""
    begun = time.perf_counter()
    job = client.submit(api_name=api_name, **inputs)
    first = 0.0
    for output in job:
        if not first and (output[0] if isinstance(output, (list, tuple)) else output):
            first = time.perf_counter() - begun
    job.result(timeout=CALL_SECONDS)  # raises what went wrong
    last = time.perf_counter() - begun
    return first or last, last  # a function that is no generator has its result alone


def burst(
    clients: Sequence[Client],
    api_name: str,
    inputs: Inputs,
    each: int,
    seconds: float,
    first: int = 0,
    memory: Callable[[], int] | None = None,
) -> Burst:
    """Every client asks `each` times, one call after another; nobody begins a call after `seconds`.

    Requests are numbered from `first`, so that two servers can be asked exactly the same.
    """

    def ask(place: int) -> Callable[[int], Any]:
        return lambda number: call(clients[place], api_name, inputs(number))

    return together([ask(place) for place in range(len(clients))], each, seconds, first, memory)


def together(
    askers: Sequence[Callable[[int], Any]],
    each: int,
    seconds: float,
    first: int = 0,
    memory: Callable[[], int] | None = None,
) -> Burst:
    """As `burst`, by anything that asks request number so and so."""
    found = Burst()
    lock = threading.Lock()
    ready = threading.Barrier(len(askers) + 1)
    began: list[float] = []

    def ask(place: int, asker: Callable[[int], Any]) -> None:
        ready.wait()
        for turn in range(each):
            number = first + place * each + turn
            begun = time.perf_counter()
            if turn and begun - began[0] > seconds:
                return
            try:
                answer = asker(number)
            except Exception as error:
                with lock:
                    found.failures.append(f"{type(error).__name__}: {error}")
                continue
            taken = time.perf_counter() - begun
            with lock:
                found.latencies.append(taken)
                found.answers[number] = answer

    threads = [threading.Thread(target=ask, args=pair, daemon=True) for pair in enumerate(askers)]
    for thread in threads:
        thread.start()
    began.append(time.perf_counter())
    with watched(memory) as peak:
        ready.wait()
        for thread in threads:
            thread.join()
        found.seconds = time.perf_counter() - began[0]
    found.peak = max(peak, default=0)
    return found


@contextmanager
def watched(memory: Callable[[], int] | None) -> Iterator[list[int]]:
    """Looks at the memory now and then until the end of the block; the list holds what was seen."""
    seen: list[int] = []
    if memory is None:
        yield seen
        return
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.append(memory())
            stop.wait(LOOK_SECONDS)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join()
        seen.append(memory())
