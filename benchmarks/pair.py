"""The suite and its naive peer, both running, with clients that have called before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from gradio_client import Client

from benchmarks.load import call, connect
from benchmarks.report import say
from benchmarks.server import Server
from benchmarks.servers import naive, suite_with_noop

CLIENTS = 16


@dataclass(frozen=True)
class Pair:
    """Both servers, and as many sessions of each as are ever asked at once."""

    suite: Server
    peer: Server
    suite_clients: list[Client]
    peer_clients: list[Client]


@contextmanager
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        say("starting the suite and its naive peer")
        suite = stack.enter_context(suite_with_noop())
        peer = stack.enter_context(naive())
        found = Pair(suite, peer, *([connect(server.url) for _ in range(CLIENTS)] for server in (suite, peer)))
        for client in [*found.suite_clients, *found.peer_clients]:
            stack.callback(client.close)
        # A client's first call opens its stream of answers, which later calls use again.
        for client in found.suite_clients:
            call(client, "/noop", {"text": "hello"})
        for client in found.peer_clients:
            call(client, "/zero_shot", {"text": "hello", "candidate_labels": "a, b"})
        yield found
