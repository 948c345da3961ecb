"""Counts of requests by endpoint and outcome, and the limit on requests a minute."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable

from shared.errors import Busy
from shared.serving.answers import Answers
from shared.serving.context import Context


class Traffic:
    """Counts of requests by endpoint and outcome, and the limit on requests a minute."""

    def __init__(
        self,
        requests_per_minute: int = 0,
        clock: Callable[[], float] = time.monotonic,
        answers: Answers | None = None,
    ) -> None:
        self._per_minute = requests_per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._in_progress = 0
        self._recent: OrderedDict[str, deque[float]] = OrderedDict()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.answers = answers or Answers()

    def admit(self, context: Context) -> None:
        """Raises `Busy` when the visitor's address asks more often than the limit allows."""
        if not self._per_minute or context.admin:
            return
        address = context.visitor.partition("/")[0]
        now = self._clock()
        with self._lock:
            recent = self._recent.setdefault(address, deque())
            while recent and recent[0] <= now - 60:
                recent.popleft()
            if len(recent) >= self._per_minute:
                raise Busy(
                    f"{self._per_minute} requests a minute are allowed; try again in {60 - now + recent[0]:.0f} s"
                )
            recent.append(now)
            self._recent.move_to_end(address)
            while len(self._recent) > 10_000:
                self._recent.popitem(last=False)

    def begin(self) -> None:
        """Counts a request in; `count` counts it out."""
        with self._lock:
            self._in_progress += 1

    def in_progress(self) -> int:
        """Requests that have begun and not ended."""
        return self._in_progress

    def count(self, endpoint: str, outcome: str, seconds: float) -> None:
        with self._lock:
            self.outcomes[endpoint, outcome] += 1
            self.seconds[endpoint] += seconds
            self._in_progress -= 1

    def report(self) -> dict[str, dict[str, float]]:
        """Per endpoint: requests by outcome, and seconds spent in all."""
        with self._lock:
            rows: dict[str, dict[str, float]] = {}
            for (endpoint, outcome), number in sorted(self.outcomes.items()):
                rows.setdefault(endpoint, {"seconds": round(self.seconds[endpoint], 3)})[outcome] = number
            return rows
