"""The socket that the application listens on."""

from __future__ import annotations

import socket

import pytest

from shared.errors import SuiteError
from shared.settings import Settings
from shared.transport.server import listening


def test_answers_are_sent_at_once() -> None:
    """asyncio sets TCP_NODELAY on connections of such a socket only; without it each answer takes 40 ms more."""
    with listening(Settings(port=0)) as bound:
        assert bound.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken_is_named() -> None:
    with listening(Settings(port=0)) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        with pytest.raises(SuiteError, match=f"port {port} of 127.0.0.1 cannot be used.*--port"):
            listening(Settings(port=port))
