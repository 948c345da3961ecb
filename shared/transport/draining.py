"""SIGTERM drains: no new requests, those in progress end within `SUITE_GRACE_SECONDS`, then the server stops.

The web server's own handling of the signal comes afterwards, so that it finds its connections idle. A second signal
ends at once. The process may be the first of a container, which the kernel gives no default handler.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK_EVERY = 0.05
"""Seconds between two looks at what is still in progress."""
LAST_WORDS = 0.3
"""Seconds in which the answers of the last requests reach their readers."""
STILL_ALLOWED = ("/gradio_api/cancel", "/gradio_api/reset")


class Draining:
    """Whether the server takes new requests, and the way to its end."""

    def __init__(self, grace_seconds: float, in_progress: Callable[[], int], end: Callable[[], None]) -> None:
        """`in_progress` counts requests; `end` stops what then still computes, and closes streams that never end."""
        self.grace_seconds = grace_seconds
        self.begun = False
        self._in_progress = in_progress
        self._end = end

    def on_signals(self) -> None:
        """Puts this before the web server's handlers of SIGTERM and SIGINT. Does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                signal.signal(number, self._handler(loop, handler))

    def _handler(self, loop: asyncio.AbstractEventLoop, servers: Callable[[int, FrameType | None], Any]) -> Any:
        def handle(number: int, frame: FrameType | None) -> None:
            if self.begun:
                servers(number, frame)
                return
            self.begun = True

            def then() -> None:
                loop.call_soon_threadsafe(servers, number, None)

            threading.Thread(target=self._drain, args=(then,), name="draining", daemon=True).start()

        return handle

    def _drain(self, then: Callable[[], Any]) -> None:
        deadline = time.monotonic() + self.grace_seconds
        if waiting := self._in_progress():
            log.warning("ending: %d requests have %.0f s left; again ends at once", waiting, self.grace_seconds)
        while self._in_progress() and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)
        if left := self._in_progress():
            log.warning("%d requests did not end in time and are cancelled", left)
        else:
            time.sleep(LAST_WORDS)
        self._end()
        then()


class RefuseWhileDraining:
    """ASGI middleware: 503 to what would begin something new. Answers of running requests are still fetched by GET."""

    def __init__(self, app: ASGIApp, draining: Draining) -> None:
        self._app = app
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            not self._draining.begun
            or scope["type"] != "http"
            or scope["method"] in ("GET", "HEAD", "OPTIONS")
            or scope["path"].startswith(STILL_ALLOWED)
        ):
            await self._app(scope, receive, send)
            return
        refusal = {"error": "the server is shutting down; try again in a moment", "field": "", "status": 503}
        headers = {"Retry-After": "5", "Connection": "close"}
        await JSONResponse(refusal, status_code=503, headers=headers)(scope, receive, send)
