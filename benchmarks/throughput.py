"""Latency, throughput and memory of every endpoint under load, taking turns with the naive peer and with a no-op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gradio_client import Client

from benchmarks.bars import Section
from benchmarks.load import Burst, Inputs, burst, call
from benchmarks.pair import Pair
from benchmarks.report import megabytes, milliseconds, say, table
from benchmarks.stats import spread
from benchmarks.workload import Case, answer_of, cases, new_tokens, topics

CLIENTS = (1, 4, 8, 16)
TIMES = {1: 3, 8: 3}
"""Rounds by number of clients: those that a bar is about are measured more than once."""
NEAR = 9
"""Rounds beside the no-op with 8 clients: single ones differ by more than the tenth that this bar leaves."""
SECONDS = 2.5
"""Nobody begins a call later than this in one burst, but each client asks once."""
MOST_CALLS = 12
"""Of one client in one burst."""
HEAVY_PEER = (1, 8)
"""Clients with which the peer is asked what takes it seconds: it answers one at a time, however many ask."""


@dataclass(frozen=True)
class Target:
    """Whom a burst asks, and what."""

    clients: Sequence[Client]
    api_name: str
    inputs: Inputs
    memory: Callable[[], int]


@dataclass
class Side:
    """What one target did in all rounds of a case."""

    bursts: list[Burst] = field(default_factory=list)

    def all(self) -> Burst:
        found = Burst()
        for one in self.bursts:
            found.latencies += one.latencies
            found.answers |= one.answers
            found.failures += one.failures
            found.seconds += one.seconds
            found.peak = max(found.peak, one.peak)
        return found

    def cells(self, writes: bool) -> list[str]:
        whole = self.all()
        if not whole.latencies:
            return ["failed" if self.bursts else "", "", "", "", ""]
        failed = f" ({len(whole.failures)} failed)" if whole.failures else ""
        tokens = f"{whole.tokens_per_second(new_tokens):,.1f}" if writes else ""
        return [
            milliseconds(whole.p(0.5)), milliseconds(whole.p(0.95)), f"{whole.per_second:.2f}{failed}", tokens,
            megabytes(whole.peak),
        ]  # fmt: skip


def section(pair: Pair, quick: bool) -> Section:
    rows: list[list[str]] = []
    figures: dict[str, list[float]] = {}
    notes: list[str] = []
    for case in cases():
        targets = targets_of(case, pair)
        for target in targets.values():
            for client in target.clients[:1]:
                call(client, target.api_name, target.inputs(0))  # loads and warms
        for count in (1, 8) if quick else CLIENTS:
            say(f"{case.title}, {count} clients")
            sides = in_turns(case, targets, count, quick)
            rows += lines(case, count, sides)
            figures |= bar_figures(case, count, sides)
            if case.peer and count == CLIENTS[0]:
                notes.append(f"{case.title}: {agreement(sides['suite'], sides['peer'])}")
            notes += [f"**{case.title} at {count}, {name}: {failed[0]}**" for name, side in sides.items()
                      if (failed := side.all().failures)]  # fmt: skip
    text = "\n\n".join([INTRODUCTION, table(COLUMNS, rows, left=2), "Same answers: " + "; ".join(notes) + "."])
    return Section(text, figures)


INTRODUCTION = f"""\
### Under load

The naive peer is plain transformers in float32 on the same weights: one `gr.Interface` a task, each checkpoint \
loaded once, Gradio's default queue (`benchmarks/peers/naive.py`). transformers cannot read the Firefox \
translations' weights, so its translator is the suite's own network in float32 PyTorch, greedy, one sentence at a \
time. The no-ops are endpoints of the suite's own app: a function, and an async generator as the suite's endpoints \
are. All run at once and are asked the same in turns, so that noise meets all; those that are not asked are idle. \
Clients are `gradio_client` sessions in one process beside the servers' on the same cores, which ask as fast as they \
are answered and no text twice; a burst begins no call after {SECONDS} s, but each client asks once. What a bar is \
about is measured in three rounds with 1 and 8 clients (two where the peer takes seconds, {NEAR} beside the no-op with \
8), all else in one; where the peer takes seconds it is asked by 1 and 8 clients only, since it answers one at a \
time. *n*: answered calls. *Peak*: most resident memory of that server meanwhile. *Ratio*: suite ÷ this row, of \
requests/s (of tokens/s where tokens are written), median over rounds (least to greatest). The peer has no extractive \
summaries and no next-token view; its few-shot leaves the suite's calibration out, which is less work."""

COLUMNS = ("endpoint", "who", "clients", "n", "p50", "p95", "requests/s", "tokens/s", "peak", "ratio")


def targets_of(case: Case, pair: Pair) -> dict[str, Target]:
    """The suite, the peer where it has the task, the no-ops where they are the measure."""
    targets = {"suite": Target(pair.suite_clients, case.api_name, case.inputs, pair.suite.resident)}
    if case.peer:
        targets["peer"] = Target(pair.peer_clients, case.peer_name, case.peer, pair.peer.resident)
    if case.beside_noop:
        for name in ("noop", "noop_stream"):
            targets[name] = Target(pair.suite_clients, f"/{name}", lambda n: {"text": topics(n)}, pair.suite.resident)
    return targets


def in_turns(case: Case, targets: dict[str, Target], count: int, quick: bool) -> dict[str, Side]:
    sides = {name: Side() for name in targets}
    rounds = 1 if quick else TIMES.get(count, 1)
    if not case.key or case.weight == "heavy":
        rounds = min(rounds, 2 if case.key else 1)
    most = 1 if quick else MOST_CALLS
    for number in range(NEAR if case.beside_noop and count == 8 and not quick else rounds):
        first = (number * len(CLIENTS) + CLIENTS.index(count)) * MOST_CALLS * max(CLIENTS)
        for name, target in targets.items():
            if number >= rounds and name not in ("suite", "noop"):
                continue
            if name == "peer" and case.weight == "heavy" and count not in HEAVY_PEER[: 1 if quick else 2]:
                continue
            sides[name].bursts.append(
                burst(target.clients[:count], target.api_name, target.inputs, most, SECONDS, first, target.memory)
            )
    return sides


def lines(case: Case, count: int, sides: dict[str, Side]) -> list[list[str]]:
    found = []
    for name, side in sides.items():
        if not side.bursts:
            continue
        ratio = ""
        if name != "suite" and (ratios := paired(sides["suite"], side, rate(case.writes and name == "peer"))):
            ratio = spread(ratios)
        n = str(len(side.all().latencies))
        found.append([case.title, name, str(count), n, *side.cells(case.writes), ratio])
    return found


def bar_figures(case: Case, count: int, sides: dict[str, Side]) -> dict[str, list[float]]:
    """What the bars ask of this case with so many clients."""
    found: dict[str, list[float]] = {}
    if not case.key:
        return found
    us = sides["suite"]
    if case.beside_noop and count == 8:
        found[f"{case.key}: rate over no-op"] = paired(us, sides["noop"], rate(False))
    if case.beside_noop and count == 1:
        pairs = zip(us.bursts, sides["noop"].bursts, strict=True)
        found[f"{case.key}: p50 over no-op"] = [a.p(0.5) - b.p(0.5) for a, b in pairs]
    if case.peer and count in (1, 8):
        measure = "tokens" if case.writes else "rate"
        found[f"{case.key}: {measure} over peer, {count}"] = paired(us, sides["peer"], rate(case.writes))
    return found


def rate(tokens: bool) -> Callable[[Burst], float]:
    return (lambda one: one.tokens_per_second(new_tokens)) if tokens else (lambda one: one.per_second)


def paired(us: Side, them: Side, measure: Callable[[Burst], float]) -> list[float]:
    """The ratio of each round in which both answered."""
    return [measure(a) / measure(b) for a, b in zip(us.bursts, them.bursts, strict=False) if measure(a) and measure(b)]


def agreement(us: Side, them: Side) -> str:
    """On how many of the same inputs both answered the same, and whether they wrote as much."""
    ours, theirs = us.all().answers, them.all().answers
    both = [(answer_of(ours[number]), answer_of(theirs[number])) for number in sorted(ours.keys() & theirs.keys())]
    said = f"{sum(a == b for a, b in both)} of {len(both)}"
    if both and all(isinstance(text, str) and " " in text for pair in both for text in pair):
        words = [sum(len(str(pair[side]).split()) for pair in both) for side in (0, 1)]
        said += f" word for word ({words[0]} words against {words[1]})"
    return said
