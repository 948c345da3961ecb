"""Load: some clients, each with a session of its own, ask as fast as they are answered; bounded in count and time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradio_client import Client

from benchmarks.stats import percentile

CALL_SECONDS = 180.0
"""A call that takes longer counts as failed."""

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

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def p(self, share: float) -> float:
        return percentile(self.latencies, share) if self.latencies else float("nan")


def connect(url: str) -> Client:
    """A client with a session of its own, that tells nobody about it."""
    return Client(url, verbose=False, analytics_enabled=False, download_files=False)


def call(client: Client, api_name: str, inputs: dict[str, Any]) -> Any:
    return client.submit(api_name=api_name, **inputs).result(timeout=CALL_SECONDS)


def burst(clients: Sequence[Client], api_name: str, inputs: Inputs, each: int, seconds: float, first: int = 0) -> Burst:
    """Every client asks `each` times, one call after another; nobody begins a call after `seconds`.

    Requests are numbered from `first`, so that two servers can be asked exactly the same.
    """
    found = Burst()
    lock = threading.Lock()
    ready = threading.Barrier(len(clients) + 1)
    began: list[float] = []

    def ask(place: int, client: Client) -> None:
        ready.wait()
        for turn in range(each):
            number = first + place * each + turn
            begun = time.perf_counter()
            if turn and begun - began[0] > seconds:
                return
            try:
                answer = call(client, api_name, inputs(number))
            except Exception as error:
                with lock:
                    found.failures.append(f"{type(error).__name__}: {error}")
                continue
            taken = time.perf_counter() - begun
            with lock:
                found.latencies.append(taken)
                found.answers[number] = answer

    threads = [threading.Thread(target=ask, args=pair, daemon=True) for pair in enumerate(clients)]
    for thread in threads:
        thread.start()
    began.append(time.perf_counter())
    ready.wait()
    for thread in threads:
        thread.join()
    found.seconds = time.perf_counter() - began[0]
    return found
