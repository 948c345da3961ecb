"""Latency and throughput of every endpoint, taking turns with the peer where it has the task too."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from gradio_client import Client

from benchmarks.lifecycle import suite
from benchmarks.load import Burst, Inputs, burst, call, connect
from benchmarks.quality import MINILM, SMOLLM
from benchmarks.report import megabytes, milliseconds, say, table
from benchmarks.server import Server
from benchmarks.stats import spread
from benchmarks.workload import Case, answer_of
from classification.scoring import SIMILARITY_SCALE
from shared.catalog import Catalog
from shared.engines import causal_lm
from shared.settings import Settings
from shared.weights import verified_folder
from summarization.abstractive import INSTRUCTION

CLIENTS = (1, 8)
BURST_SECONDS = 20.0
"""Nobody begins a call later than this in one burst."""


@dataclass(frozen=True)
class Size:
    """How much is asked: bursts, and calls of each client in one, by whether the case is heavy."""

    rounds: int
    alone: tuple[int, int]
    together: tuple[int, int]

    def each(self, clients: int, heavy: bool) -> int:
        return (self.alone if clients == 1 else self.together)[heavy]


FULL = Size(3, (6, 2), (2, 1))
QUICK = Size(1, (2, 1), (1, 1))


@dataclass
class Side:
    """What one server did in all rounds of a case."""

    bursts: list[Burst] = field(default_factory=list)

    def all(self) -> Burst:
        found = Burst()
        for one in self.bursts:
            found.latencies += one.latencies
            found.answers |= one.answers
            found.failures += one.failures
            found.seconds += one.seconds
        return found

    def cells(self) -> list[str]:
        whole = self.all()
        if not whole.latencies:
            return ["failed", "", ""]
        failed = f" ({len(whole.failures)} failed)" if whole.failures else ""
        return [milliseconds(whole.p(0.5)), milliseconds(whole.p(0.95)), f"{whole.per_second:.2f}{failed}"]


def peer_server() -> Server:
    """The peer, given the same weights from the same folders."""
    settings, catalog = Settings(), Catalog.read()
    smollm, minilm = catalog.choose_by_id(SMOLLM), catalog.choose_by_id(MINILM)
    ready = causal_lm.prepare(smollm, verified_folder(smollm, settings, silent), settings, silent)
    folder = verified_folder(minilm, settings, silent)
    return Server(
        ["-m", "benchmarks.peer", "--minilm", str(folder), "--smollm", str(ready), "--scale", str(SIMILARITY_SCALE),
         "--instruction", INSTRUCTION]
    )  # fmt: skip


def silent(what: str, done: int, total: int) -> None:
    """Nobody watches."""


def section(cases: Sequence[Case], quick: bool) -> str:
    size = QUICK if quick else FULL
    with ExitStack() as stack:
        say("starting the suite and its peer")
        ours = stack.enter_context(suite())
        theirs = stack.enter_context(peer_server())
        our_clients = [connect(ours.url) for _ in range(max(CLIENTS))]
        their_clients = [connect(theirs.url) for _ in range(max(CLIENTS))]
        cheap = next(case for case in cases if case.peer)
        open_sessions(our_clients, cheap.api_name, cheap.inputs)
        open_sessions(their_clients, cheap.peer_name, cheap.peer or cheap.inputs)
        rows = []
        notes = []
        for case in cases:
            for client, name, inputs in ((our_clients[0], case.api_name, case.inputs),
                                         (their_clients[0], case.peer_name, case.peer)):  # fmt: skip
                if inputs:
                    call(client, name, inputs(0))
            for count in CLIENTS:
                say(f"{case.title}, {count} clients")
                us, them = in_turns(case, our_clients[:count], their_clients[:count], size)
                rows.append(line(case, count, us, them))
                if case.peer and count == CLIENTS[0]:
                    notes.append(f"{case.title}: {agreement(us, them)}")
                failures = us.all().failures + them.all().failures
                notes += [f"{case.title} at {count}: {failures[0]}"] if failures else []
        memory = (
            f"Resident memory afterwards: the suite, all its endpoints, {megabytes(ours.resident())}; the peer, its "
            f"five tasks in one process, {megabytes(theirs.resident())}."
        )
        for client in [*our_clients, *their_clients]:
            client.close()
    return "\n\n".join([INTRODUCTION, table(COLUMNS, rows), memory, "Same answers: " + "; ".join(notes) + "."])


INTRODUCTION = f"""\
### The suite and its peer under load

The peer is plain transformers in float32 on the same weights: one `gr.Interface` a task with a model of its own and \
Gradio's default queue (`benchmarks/peer.py`). Both run at once and are asked the same in turns (suite, peer, suite, \
peer …), so that noise meets both; the one that is not asked is idle. Clients are `gradio_client` sessions in one \
process, which ask as fast as they are answered; a burst begins no call after {BURST_SECONDS:.0f} s. *n*: answered \
calls, suite + peer. *Ratio*: suite ÷ peer of each pair of bursts, median (least to greatest); below 1 the suite is \
faster in p50, above 1 it answers more a second. The peer has no few-shot, no extractive summaries, no chat; for \
translation there is none, since transformers cannot read these Marian weights."""

COLUMNS = ("endpoint", "clients", "n", "p50", "p95", "calls/s", "peer p50", "peer p95", "peer calls/s", "ratio p50",
           "ratio calls/s")  # fmt: skip


def open_sessions(clients: Sequence[Client], api_name: str, inputs: Inputs) -> None:
    """A client's first call opens its stream of answers, which later calls use again."""
    for client in clients:
        call(client, api_name, inputs(0))


def in_turns(case: Case, ours: Sequence[Client], theirs: Sequence[Client], size: Size) -> tuple[Side, Side]:
    us, them = Side(), Side()
    each = size.each(len(ours), case.heavy)
    for number in range(size.rounds):
        first = number * each * len(ours)
        us.bursts.append(burst(ours, case.api_name, case.inputs, each, BURST_SECONDS, first))
        if case.peer:
            them.bursts.append(burst(theirs, case.peer_name, case.peer, each, BURST_SECONDS, first))
    return us, them


def line(case: Case, clients: int, us: Side, them: Side) -> list[str]:
    n = str(len(us.all().latencies))
    if not case.peer:
        return [case.title, str(clients), n, *us.cells(), "no peer", "", "", "", ""]
    pairs = [(a, b) for a, b in zip(us.bursts, them.bursts, strict=True) if a.latencies and b.latencies]
    ratios = ["", ""]
    if pairs:
        ratios = [
            spread([a.p(0.5) / b.p(0.5) for a, b in pairs]),
            spread([a.per_second / b.per_second for a, b in pairs]),
        ]
    return [case.title, str(clients), f"{n} + {len(them.all().latencies)}", *us.cells(), *them.cells(), *ratios]


def agreement(us: Side, them: Side) -> str:
    """On how many of the same inputs both answered the same, and whether they wrote as much."""
    ours, theirs = us.all().answers, them.all().answers
    both = [(answer_of(ours[number]), answer_of(theirs[number])) for number in sorted(ours.keys() & theirs.keys())]
    same = sum(a == b for a, b in both)
    said = f"{same} of {len(both)}"
    if both and all(isinstance(text, str) and " " in text for pair in both for text in pair):
        said += " word for word ({} words against {})".format(
            *(sum(len(pair[side].split()) for pair in both) for side in (0, 1))
        )
    return said
