"""The application on a socket: uvicorn in this thread until a signal comes, or in a thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from shared.errors import SuiteError
from shared.settings import Settings

STARTS_WITHIN = 60.0
CLOSES_WITHIN = 5.0
"""Seconds."""


class Server(uvicorn.Server):
    """A uvicorn server that says when it listens."""

    def __init__(self, app: Any, settings: Settings, on_start: Callable[[str], None] = lambda url: None) -> None:
        """Takes the port at once. Raises `SuiteError` where it is taken, or the address is not this machine's."""
        # What is still open after draining is a page's own stream of events, which never ends by itself.
        super().__init__(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        self._socket = listening(settings)
        host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self._socket.getsockname()[1]}/"
        self._on_start = on_start
        self._thread: threading.Thread | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start(self.url)

    def run_here(self) -> None:
        """Serves until SIGTERM or SIGINT."""
        self.run(sockets=[self._socket])

    def run_in_thread(self) -> None:
        """Serves in the background; returns when it listens."""
        self._thread = threading.Thread(target=self.run_here, name="server", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + STARTS_WITHIN
        while not self.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise SuiteError("the web server did not start; the log says why")
            time.sleep(0.001)

    def close(self) -> None:
        """Ends a server that runs in a thread."""
        self.should_exit = True
        if self._thread is not None:
            self._thread.join(CLOSES_WITHIN)
        self._socket.close()


def listening(settings: Settings) -> socket.socket:
    """A socket bound to the address and port of the settings; port 0 takes a free one."""
    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off where the protocol is named, and without that each answer takes 40 ms more.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, settings.port))
    except OSError as error:
        bound.close()
        raise SuiteError(
            f"port {settings.port} of {settings.host} cannot be used: {error.strerror or error}. Choose another with "
            "--port, or 0 for any free one"
        ) from error
    bound.set_inheritable(True)
    return bound
