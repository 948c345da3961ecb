"""Stored answers, so that no request is computed twice: those to the examples, and each visitor's own.

The answer to a deterministic request is stored for the visitor who sent it: the key holds the endpoint, every input,
and the visitor's address and session. The answers to the examples, which everybody sees, are stored for everybody.
Keys are hashes, and answers are pickled, so their size is known and nobody changes one. Errors and cancelled requests
are not stored. A file's path says nothing about its content, so a request with a file is never deterministic.

*How long an answer is right.* The same request can mean other weights later: another checkpoint becomes the default
when a Hub becomes reachable or a download ends, and an adapter's folder may get new weights. So all answers are dropped
when the offer changes, and an answer that was computed across such a change is not stored.

*Privacy.* A client chooses the name of its session. Another client with the same address (behind a proxy) that knows
this name and sends the very same request learns from `cached`, or from the response time, that the request was sent in
the last half hour; it would have got the answer itself anyway. Since a client that knows the name of a session can read
all its events from Gradio, this reveals nothing new. The answer to a request without a session is not stored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shared.events import Done, RunInfo
from shared.serving.context import Context
from shared.serving.requests import Request
from shared.serving.runtime import Runtime

log = logging.getLogger(__name__)

MOST_ANSWERS = 5_000

LARGEST_SHARE = 8
"""An answer larger than the budget divided by this is not stored: it would evict too many others."""

STORED_SECONDS = 1800.0
"""An answer that nobody requests for this long is dropped."""

OFFER_SECONDS = 2.0
"""Seconds after which the offer is read again from the disk, which takes 9 ms for 28 checkpoints and 5 adapters."""


@dataclass(frozen=True)
class Offer:
    """The checkpoints and adapters that are offered: beside the request, they decide which weights answer it."""

    checkpoints: tuple[tuple[str, str, bool], ...]
    """Id, revision ("" where it is not pinned) and whether it may be a default now, in the order of choice."""
    adapters: tuple[str, ...]
    """`name@revision`, as RunInfo has it."""

    def made(self, run: RunInfo) -> bool:
        """Whether a checkpoint and adapter of the offer gave the answer. A folder that the admin named may change."""
        known = any(run.checkpoint == name and revision in ("", run.revision) for name, revision, _ in self.checkpoints)
        return known and (not run.adapter or run.adapter in self.adapters)


def offer_of(runtime: Runtime) -> Offer:
    catalog = runtime.catalog
    return Offer(
        tuple((c.id, c.revision, not catalog.why_not(c, False)) for c in catalog),
        tuple(f"{adapter.name}@{adapter.revision}" for adapter in runtime.adapters),
    )


class Answers:
    """Bounded in bytes and in number; the least recently used are dropped. With 0 bytes, only answers to examples."""

    def __init__(
        self,
        nbytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
        offer_of: Callable[[Runtime], Offer] = offer_of,
    ) -> None:
        self._budget = nbytes
        self._clock = clock
        self._offer_of = offer_of
        self._lock = threading.RLock()
        self._offer: Offer | None = None
        self._looked = 0.0
        self._examples: dict[bytes, tuple[str, Request]] = {}
        self._shared: dict[bytes, bytes] = {}
        self._own: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        """Key → pickled answer and time of its last request; the most recent last."""
        self._held = 0

    def question(self, endpoint: str, request: Request, context: Context) -> Question | None:
        """Where this request's answer is stored; None where it is not."""
        expected = any(endpoint == name for name, _ in self._examples.values())
        address, _, session = context.visitor.partition("/")
        own = bool(self._budget and address and session and request.deterministic)
        if not (own or expected):
            return None
        content = [endpoint, request.model_dump(mode="json")]
        shared_key = key(content)
        shared = shared_key in self._examples
        if not (own or shared):
            return None
        # The admin may do more than the same visitor after signing out.
        own_key = shared_key if shared else key([*content, context.visitor, context.admin])
        return Question(own_key, shared, context.runtime, self._look(context.runtime))

    def _look(self, runtime: Runtime) -> Offer:
        """The offer. Drops all answers where it has changed."""
        with self._lock:
            if self._offer is not None and self._clock() - self._looked < OFFER_SECONDS:
                return self._offer
        found = self._offer_of(runtime)
        with self._lock:
            if found != self._offer:
                self._shared.clear()
                self._own.clear()
                self._held = 0
            self._offer, self._looked = found, self._clock()
            return found

    # -- examples ----------------------------------------------------------------------------------

    def expect(self, endpoint: str, request: Request) -> None:
        """Declares an example, whose first answer is stored for everybody, whether or not it is deterministic."""
        self._examples[key([endpoint, request.model_dump(mode="json")])] = endpoint, request

    def pending(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Endpoint and inputs of examples not answered yet."""
        for number, (endpoint, request) in list(self._examples.items()):
            if number not in self._shared:
                yield endpoint, request.model_dump(mode="json")

    # -- reading and storing -------------------------------------------------------------------------

    def get(self, question: Question | None) -> Done | None:
        """The stored answer, marked as cached. Its times are those of the computation that made it."""
        if question is None:
            return None
        with self._lock:
            self._drop_old()
            if question.shared:
                pickled = self._shared.get(question.key)
            else:
                pickled, _ = self._own.pop(question.key, (None, 0.0))
                if pickled is not None:
                    self._own[question.key] = pickled, self._clock()
        if pickled is None:
            return None
        result, run = pickle.loads(pickled)
        return Done(result, run.model_copy(update={"cached": True}))

    def keep(self, question: Question | None, answer: Done) -> None:
        if question is None or self._look(question.runtime) != question.offer or not question.offer.made(answer.run):
            return
        try:
            pickled = pickle.dumps((answer.result, answer.run), pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # whatever a result's own types raise
            log.warning("an answer cannot be stored (%s)", type(error).__name__)
            return
        with self._lock:
            if question.shared:
                self._shared.setdefault(question.key, pickled)
            elif len(pickled) * LARGEST_SHARE <= self._budget and question.key not in self._own:
                self._own[question.key] = pickled, self._clock()
                self._held += len(pickled)
                self._drop_old()

    def _drop_old(self) -> None:
        oldest = self._clock() - STORED_SECONDS
        while self._own:
            number, (pickled, used) = next(iter(self._own.items()))
            if self._held <= self._budget and len(self._own) <= MOST_ANSWERS and used > oldest:
                return
            del self._own[number]
            self._held -= len(pickled)

    def report(self) -> dict[str, int]:
        """Number and bytes of the stored answers of visitors."""
        with self._lock:
            return {"answers": len(self._own), "bytes": self._held, "budget_bytes": self._budget}


@dataclass(frozen=True)
class Question:
    """Where one request's answer is stored."""

    key: bytes
    shared: bool
    """Whether it is an example, with an answer for everybody."""
    runtime: Runtime
    offer: Offer
    """As it was when the request came."""


def key(parts: list[Any]) -> bytes:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
