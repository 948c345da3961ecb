"""Failures on demand: what a test orders, and how it befalls an answer on its way."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.stand_in_hub.refusals import Refusal

PIECE = 16 * 1024
"""Bytes written at a time."""


@dataclass(eq=False)
class Fault:
    path_contains: str
    times: float
    method: str | None = None
    refusal: Refusal | None = None
    hangs: bool = False
    cut_at: float | None = None
    gate_at: float | None = None
    bytes_per_second: float = math.inf
    corrupts: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    """Set once nothing is to be held back any more."""

    @property
    def of_the_body(self) -> bool:
        return self.refusal is None and not self.hangs

    def hold(self, closing: threading.Event, seconds: float = math.inf) -> None:
        """Wait for the order's end, at most for so long, and not when the server closes."""
        until = time.monotonic() + seconds
        while not closing.is_set() and (left := until - time.monotonic()) > 0 and not self.over.wait(min(left, 0.02)):
            pass


class Faults:
    """Orders apply to addresses (path and query) that contain `path_contains`, to the next `times` requests or bodies.

    With `method`, only to such requests. Orders about bodies wait for a 2xx answer that has one, so a HEAD or a
    redirect uses none up. A large file has two addresses, `/{repo}/resolve/{revision}/{path}` and
    `/storage/{sha256}/{file name}`; the second brings the bytes.
    """

    def __init__(self, listen: Callable[[bool], None]) -> None:
        self._listen = listen
        self._orders: list[Fault] = []
        self._lock = threading.Lock()

    def rate_limit(
        self, path_contains: str = "", *, times: float = 1, retry_after: int = 0, method: str | None = None
    ) -> None:
        """429, to be asked again after whole seconds (the client waits one more)."""
        headers = {"Retry-After": str(retry_after), "RateLimit": f'"api";r=0;t={retry_after}'}
        headers["RateLimit-Policy"] = '"fixed window";"api";q=500;w=300'
        refusal = Refusal(429, "We had to rate limit you.", headers=headers)
        self._add(Fault(path_contains, times, method, refusal))

    def server_error(
        self, path_contains: str = "", *, times: float = 1, status: int = 503, method: str | None = None
    ) -> None:
        self.refuse(path_contains, Refusal(status, "Internal Error - We're working hard to fix this."), times, method)

    def refuse(self, path_contains: str, refusal: Refusal, times: float = 1, method: str | None = None) -> None:
        """Any other refusal, such as 402."""
        self._add(Fault(path_contains, times, method, refusal))

    def hang(self, path_contains: str = "", *, times: float = math.inf, method: str | None = None) -> threading.Event:
        """The request is taken and not answered before the returned event is set."""
        return self._add(Fault(path_contains, times, method, hangs=True)).over

    def cut(self, path_contains: str = "", *, at: float = 0.5, times: float = 1, method: str | None = None) -> None:
        """The connection breaks after this share of the body."""
        self._add(Fault(path_contains, times, method, cut_at=at))

    def slow(self, path_contains: str = "", *, bytes_per_second: float, times: float = math.inf) -> None:
        self._add(Fault(path_contains, times, bytes_per_second=bytes_per_second))

    def gate(self, path_contains: str = "", *, at: float = 0.5, times: float = math.inf) -> threading.Event:
        """The body stops after this share of it until the returned event is set."""
        return self._add(Fault(path_contains, times, gate_at=at)).over

    def corrupt(self, path_contains: str = "", *, times: float = math.inf) -> None:
        """The bytes in the middle and at the end of the body arrive inverted; headers are right."""
        self._add(Fault(path_contains, times, corrupts=True))

    def unreachable(self) -> None:
        """Connections are refused, and those that stand are closed, until `clear`."""
        self._listen(False)

    def clear(self) -> None:
        """All is well again, also for requests that are being held."""
        with self._lock:
            orders, self._orders = self._orders, []
        for fault in orders:
            fault.over.set()
        self._listen(True)

    def before(self, method: str, address: str) -> Fault | None:
        """What befalls a request instead of, or before, its answer."""
        return next(iter(self._take(method, address, of_the_body=False)), None)

    def during(self, method: str, address: str) -> list[Fault]:
        """What befalls a body on its way."""
        return self._take(method, address, of_the_body=True)

    def _add(self, fault: Fault) -> Fault:
        with self._lock:
            self._orders.append(fault)
        return fault

    def _take(self, method: str, address: str, of_the_body: bool) -> list[Fault]:
        taken = []
        with self._lock:
            for fault in self._orders:
                wanted = fault.times > 0 and not fault.over.is_set() and fault.of_the_body == of_the_body
                if wanted and fault.method in (None, method) and fault.path_contains in address:
                    fault.times -= 1
                    taken.append(fault)
                    if not of_the_body:
                        break
        return taken


def pour(body: bytes, faults: list[Fault], write: Callable[[bytes], None], closing: threading.Event) -> bool:
    """Write a body as the faults have it. False if the connection is to be cut here."""
    if body and any(fault.corrupts for fault in faults):
        inverted = bytearray(body)
        for i in {len(body) // 2, len(body) - 1}:
            inverted[i] ^= 0xFF
        body = bytes(inverted)
    stops = {round(fault.gate_at * len(body)): fault for fault in faults if fault.gate_at is not None}
    cuts = [round(fault.cut_at * len(body)) for fault in faults if fault.cut_at is not None]
    slow = [fault for fault in faults if fault.bytes_per_second < math.inf]
    end, at = min([len(body), *cuts]), 0
    while True:
        if at in stops:
            stops[at].hold(closing)
        if closing.is_set():
            return False
        if at >= end:
            return not cuts
        step = min([PIECE, end - at, *(stop - at for stop in stops if stop > at)])
        for fault in slow:
            step = min(step, max(1, int(fault.bytes_per_second / 20)))
            fault.hold(closing, step / fault.bytes_per_second)
        write(body[at : at + step])
        at += step
