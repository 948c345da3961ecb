"""One client: time to the first token, and what a call costs without `gradio_client`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.bars import Section
from benchmarks.load import Burst, burst, call, connect, first_output, together
from benchmarks.pair import Pair
from benchmarks.plain_http import PlainClient
from benchmarks.report import milliseconds, say, table
from benchmarks.stats import percentile, spread
from benchmarks.workload import NEW_TOKENS, SAMPLED, english, new_tokens, openings, topics

TURNS = 15
"""Calls of each kind for the time to first token."""
FAR = 100_000
"""Numbers of requests that no other part asks."""
SECONDS = 2.0
ROUNDS = 2


def first_tokens(pair: Pair, quick: bool) -> Section:
    """Time to first token beside the no-op, in turns."""
    say("time to first token")
    client, peer = pair.suite_clients[0], pair.peer_clients[0]
    prompt: Callable[[int], dict[str, Any]] = lambda n: {"prompt": openings(FAR + n), "max_new_tokens": NEW_TOKENS}  # noqa: E731 - no more than a value
    asked: dict[str, Callable[[int], tuple[float, float]]] = {
        "no-op, an async generator": lambda n: first_output(client, "/noop_stream", {"text": topics(n)}),
        f"generate, {NEW_TOKENS} tokens, greedy": lambda n: first_output(client, "/generate", prompt(n)),
        f"generate, {NEW_TOKENS} tokens, sampled": lambda n: first_output(
            client, "/generate", {**prompt(n + TURNS), "seed": n, **SAMPLED}
        ),
        f"chat, {NEW_TOKENS} tokens": lambda n: first_output(
            client, "/chat", {"message": topics(FAR + n), "max_new_tokens": NEW_TOKENS}
        ),
    }
    turns = 3 if quick else TURNS
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    for ask in asked.values():
        ask(5 * TURNS)
    for turn in range(turns):
        for name, ask in asked.items():
            found[name].append(ask(turn))
    whole = [
        first_output(peer, "/generate", {**prompt(2 * TURNS + n), "do_sample": False, "seed": 0})
        for n in range(1 if quick else 3)
    ]
    found["naive peer, which streams nothing"] = whole
    floor = [first for first, _ in found["no-op, an async generator"]]
    rows = []
    for name, times in found.items():
        firsts, lasts = zip(*times, strict=True)
        over = percentile(firsts, 0.5) - percentile(floor, 0.5)
        rows.append([name, *(milliseconds(percentile(firsts, at)) for at in (0.5, 0.95)),
                     milliseconds(percentile(lasts, 0.5)), f"{1000 * over:+.0f} ms"])  # fmt: skip
    greedy = [first for first, _ in found[f"generate, {NEW_TOKENS} tokens, greedy"]]
    text = (
        f"### Time to first token\n\nOne client, through `gradio_client`, {turns} calls of each kind in turns.\n\n"
        + table(["call", "first output, p50", "p95", "last output, p50", "first output over the no-op's"], rows)
    )
    return Section(text, {"first token over no-op": [percentile(greedy, 0.5) - percentile(floor, 0.5)]})


def without_client(pair: Pair, quick: bool) -> Section:
    """The same calls through `gradio_client` and by plain HTTP."""
    asked = {
        "/noop": lambda n: {"text": topics(n)},
        "/zero_shot": lambda n: {"text": topics(n)},
        "/translate": lambda n: {"text": english(n)},
        "/generate": lambda n: {"prompt": openings(n), "max_new_tokens": NEW_TOKENS},
    }
    plain = [PlainClient(pair.suite.url) for _ in range(8)]
    lighter = [connect(pair.suite.url, ssl_verify=False) for _ in range(8)]
    rows = []
    for name, inputs in asked.items():
        for client in lighter:
            call(client, name, inputs(FAR))
        for count in (1, 8):
            say(f"plain HTTP, {name}, {count} clients")
            by_client, by_lighter, by_http = [], [], []
            for number in range(1 if quick else ROUNDS):
                first = FAR + (2 * number + 1) * 500 * count
                each = 2 if quick else 12
                by_client.append(burst(pair.suite_clients[:count], name, inputs, each, SECONDS, first))
                by_lighter.append(burst(lighter[:count], name, inputs, each, SECONDS, first + 125 * count))
                askers = [_asker(one, name, inputs) for one in plain[:count]]
                by_http.append(together(askers, each, SECONDS, first + 250 * count))
            ratios = [
                b.per_second / a.per_second
                for a, b in zip(by_client, by_http, strict=True)
                if a.per_second and not a.failures + b.failures
            ]
            rows.append([name, str(count), *_cells(by_client), *_cells(by_lighter), *_cells(by_http),
                         spread(ratios) if ratios else ""])  # fmt: skip
    for one in [*plain, *lighter]:
        one.close()
    text = (
        "### Without `gradio_client`\n\n`POST /gradio_api/call/v2/<name>` and its event stream over one kept-open "
        "connection a client, against `gradio_client`, on the same server in turns. *No TLS*: the client made with "
        "`ssl_verify=False`, which on plain HTTP leaves out nothing but reading the file of certificates in each "
        "call. *Ratio*: requests/s by plain HTTP ÷ through the client.\n\n"
        + table(
            [
                "endpoint",
                "clients",
                "client p50",
                "requests/s",
                "tokens/s",
                "no TLS p50",
                "requests/s",
                "tokens/s",
                "HTTP p50",
                "requests/s",
                "tokens/s",
                "ratio",
            ],
            rows,
        )
    )
    return Section(text)


def _asker(client: PlainClient, name: str, inputs: Callable[[int], dict[str, Any]]) -> Callable[[int], Any]:
    return lambda number: client.call(name, inputs(number))


def _cells(bursts: list[Burst]) -> list[str]:
    latencies = [taken for one in bursts for taken in one.latencies]
    failures = [failed for one in bursts for failed in one.failures]
    if failures:
        return [f"failed: {failures[0]}", "", ""]
    seconds = sum(one.seconds for one in bursts)
    tokens = sum(new_tokens(answer) for one in bursts for answer in one.answers.values())
    return [milliseconds(percentile(latencies, 0.5)), f"{len(latencies) / seconds:.1f}",
            f"{tokens / seconds:.1f}" if tokens else ""]  # fmt: skip
