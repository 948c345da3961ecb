"""One client of the soak: three ways of asking, of leaving before the answer, and of being turned away."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from gradio_client import Client
from gradio_client.utils import QueueError, TooManyRequestsError

from benchmarks.load import connect

ANSWERED, LEFT, REFUSED, FAILED, LOST = "answered", "left", "refused", "failed", "lost"
REASONS = ("requests are waiting already", "Queue is full", "requests a minute are allowed")
"""By which a message is known for a refusal."""
SILENCE = 90.0
"""Seconds without a byte, heartbeats included, after which a request counts as lost."""


class Refused(Exception):
    """The server turned the request away and said why."""


@dataclass(frozen=True)
class Asked:
    """One request: what, how long the client stays (None: to the end), and until when it may take at all."""

    api_name: str
    inputs: dict[str, Any]
    stays: float | None
    give_up_at: float

    @property
    def left(self) -> float:
        return max(0.1, self.give_up_at - time.monotonic())

    def read(self, events: Iterator[tuple[str, Any]], answer: str) -> str:
        """Follows an event stream until its `answer`, or until the client leaves."""
        begun = time.monotonic()
        for kind, data in events:
            if kind == answer:
                return ANSWERED
            if kind == "error":
                raise_said(str(data))
            if self.stays is not None and time.monotonic() - begun > self.stays:
                return LEFT
            if time.monotonic() > self.give_up_at:
                raise TimeoutError("no answer within the grace period")
        raise RuntimeError("the stream ended without a result")


class Visitor:
    """A client with a session and connections of its own."""

    def __init__(self, url: str) -> None:
        self._client: Client = connect(url)
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=SILENCE)
        self._address = urlsplit(url)
        self.ways: dict[str, Callable[[Asked], str]] = {
            "gradio_client": self.by_client,
            "POST /stream": self.by_stream,
            "plain HTTP": self.by_call,
        }

    def by_client(self, asked: Asked) -> str:
        job = self._client.submit(api_name=asked.api_name, **asked.inputs)
        if asked.stays is None:
            job.result(timeout=asked.left)
            return ANSWERED
        try:
            job.result(timeout=asked.stays)
            return ANSWERED
        except TimeoutError:
            job.cancel()
            return LEFT

    def by_stream(self, asked: Asked) -> str:
        path = f"/stream{asked.api_name}"
        if asked.stays == 0:
            return self._hang_up(path, asked.inputs)
        with self._http.stream("POST", path, json=asked.inputs) as response:
            refuse_unless_ok(response)
            return asked.read(sent_events(response.iter_lines()), "done")

    def by_call(self, asked: Asked) -> str:
        path = f"/gradio_api/call/v2{asked.api_name}"
        event = refuse_unless_ok(self._http.post(path, json=asked.inputs)).json()["event_id"]
        if asked.stays == 0:
            return LEFT  # and never asks for what comes of it
        with self._http.stream("GET", f"{path}/{event}") as response:
            refuse_unless_ok(response)
            return asked.read(sent_events(response.iter_lines()), "complete")

    def _hang_up(self, path: str, inputs: dict[str, Any]) -> str:
        """Sends a request whole and closes the connection without waiting for a byte."""
        connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=SILENCE)
        connection.request("POST", path, json.dumps(inputs), {"Content-Type": "application/json"})
        connection.close()
        return LEFT


def sent_events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Kind and data of server-sent events; ("", None) for a heartbeat."""
    kind = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)
        elif line.startswith(":"):
            yield "", None


def refuse_unless_ok(response: httpx.Response) -> httpx.Response:
    if response.status_code != 200:
        said = f"{response.status_code}: {response.read().decode(errors='replace')[:300]}"
        if response.status_code == 429:
            raise Refused(said)
        raise_said(said)
    return response


def raise_said(said: str) -> None:
    raise (Refused if any(reason in said for reason in REASONS) else RuntimeError)(said)


def outcome_of(error: Exception) -> str:
    """What a request ended in that raised this."""
    if isinstance(error, (TimeoutError, httpx.TimeoutException)):
        return LOST
    if isinstance(error, (Refused, QueueError, TooManyRequestsError)) or any(r in str(error) for r in REASONS):
        return REFUSED
    return FAILED
