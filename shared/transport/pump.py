"""Events of a task function, from its thread to the event loop, until the reader leaves.

The generator shows the newest event, at most twenty times a second: the first part of a result at once, the result
itself at once, and what a request waits for only once there has been time to read it. A quick request is therefore one
message.

Gradio closes the generator on Stop, on `job.cancel()` and on a lost connection, which sets the request's cancel signal,
so the computation ends within one step. It looks for a lost connection only between two yields, hence the heartbeat.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from shared.events import Done, Event, Partial, Running

HEARTBEAT = 0.5
"""Seconds after which the last event is yielded again when nothing new has come."""

MIN_UPDATE_INTERVAL = 0.05
"""Least seconds between two partial results on the page."""

QUIET_SECONDS = 0.3
"""A request that waits longer than this many seconds is told what it waits for."""


async def pump(
    events: Iterator[Event], cancel: threading.Event, threads: ThreadPoolExecutor
) -> AsyncGenerator[Event, None]:
    """The newest of these events, iterated in one of these threads. Sets `cancel` when it is closed or has ended.

    Raises what the events raise.
    """
    loop = asyncio.get_running_loop()
    mailbox = Mailbox(loop)
    # With Gradio's own context: on ZeroGPU it says on whose account a GPU is taken.
    threads.submit(copy_context().run, mailbox.fill, events)
    last: Event | None = None
    shown = begun = loop.time()
    try:
        while True:
            # An event even before the first result: Gradio notices a lost connection only between two yields.
            heartbeat = shown + HEARTBEAT
            partial_from = shown + MIN_UPDATE_INTERVAL if isinstance(last, Partial) else begun
            waiting_from = max(begun + QUIET_SECONDS, shown + MIN_UPDATE_INTERVAL)
            event = await mailbox.take(partial_from, waiting_from, heartbeat)
            if event is None:
                if mailbox.ended:
                    return
                event = last or Running()
            last, shown = event, loop.time()
            yield event
            if isinstance(event, Done):
                return
    finally:
        cancel.set()


class Mailbox:
    """Hands events from a thread to the event loop, the newest alone: a slow reader never holds up the model.

    The loop is woken only for what it would show at once, not for each token.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._newest: Event | None = None
        self._error: BaseException | None = None
        self.ended = False
        self._sleeper: asyncio.Future[None] | None = None
        self._wakes = 0
        """From which urgency on an event wakes the loop."""

    def fill(self, events: Iterator[Event]) -> None:
        """Runs in the thread, until the events end or the request is cancelled."""
        try:
            for event in events:
                with self._lock:
                    self._newest = event
                    sleeper = self._sleeper if urgency(event) >= self._wakes else None
                self._wake(sleeper)
        except BaseException as error:
            self._error = error
        with self._lock:
            self.ended = True
            sleeper = self._sleeper
        self._wake(sleeper)

    def _wake(self, sleeper: asyncio.Future[None] | None) -> None:
        if sleeper is not None:
            try:
                self._loop.call_soon_threadsafe(wake, sleeper)
            except RuntimeError:
                return  # the server is shutting down and its loop is closed

    async def take(self, partial_from: float, waiting_from: float, until: float) -> Event | None:
        """The newest event: `Done` at once, the others not before these times of the loop's clock.

        None when there is none `until` then, or when they have ended. Raises what the task raised.
        """
        due = (waiting_from, partial_from, 0.0)
        while True:
            with self._lock:
                now = self._loop.time()
                event = self._newest
                rank = urgency(event) if event is not None else -1
                if event is not None and (due[rank] <= now or (self.ended and rank > 0)):
                    self._newest = None
                    return event
                if self.ended:
                    break
                if now >= until:
                    return None
                # An event that would not be shown at once, or not before the one that is here, need not wake anybody.
                self._wakes = next(r for r in range(rank + 1, len(due)) if due[r] <= now)
                sleeper = self._sleeper = self._loop.create_future()
            timer = self._loop.call_at(min([until, *(time for time in due if time > now)]), wake, sleeper)
            try:
                await sleeper
            finally:
                timer.cancel()
                self._sleeper = None
        if self._error is not None:
            raise self._error
        return None


def urgency(event: Event) -> int:
    """0 for what a request waits for, 1 for a part of its result, 2 for the result."""
    return 2 if isinstance(event, Done) else int(isinstance(event, Partial))


def wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
