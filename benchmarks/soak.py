"""Soak: many clients for some minutes, who cancel and hang up as they like: `python -m benchmarks.soak`.

Each client asks one random thing after another, through `gradio_client`, by `POST /stream` or by Gradio's plain HTTP.
Most wait for the answer, some stop a little later, some go at once without reading a byte. The queue is made short
enough that some are turned away. At the end: how every request ended, and what the server still holds.
"""

from __future__ import annotations

import itertools
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import httpx
import typer

from benchmarks.load import call, connect
from benchmarks.report import machine, megabytes, say, table, write_section
from benchmarks.server import Server
from benchmarks.servers import suite
from benchmarks.soak_client import ANSWERED, FAILED, LEFT, LOST, REFUSED, SILENCE, Asked, Visitor, outcome_of
from benchmarks.soak_files import uploads
from benchmarks.stats import percentile
from benchmarks.workload import Case, cases

OUTCOMES = {
    ANSWERED: "answers",
    LEFT: "cancelled by the client",
    REFUSED: "refused with a reason (429, queue full)",
    FAILED: "errors that are not the client's own",
    LOST: "lost: neither answered nor refused",
}
FATES = {"stays": 70, "leaves": 20, "leaves at once": 10}
"""What a client does, of a hundred requests."""
LONGEST_STAY = 4.0
"""Seconds after which one who leaves has left."""
REST_AFTER_REFUSAL = 5.0
"""Seconds at most until who was turned away asks again."""
GRACE = 180.0
"""Seconds that requests under way get once no new ones are sent."""
TRACEBACK = "Traceback (most recent call last)"
LOG_SHOWN = 6_000
FAR = 500_000
"""Numbers of requests that no other part asks."""


@dataclass(frozen=True)
class Ended:
    way: str
    endpoint: str
    outcome: str
    said: str
    seconds: float


@dataclass
class Soak:
    """What happened, as it happens."""

    known: Sequence[Case]
    uploading: Sequence[Case]
    """Those of them that send files."""
    ended: list[Ended] = field(default_factory=list)
    begun: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(FAR))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def visit(self, visitor: Visitor, seed: int, until: float, give_up_at: float) -> None:
        """Asks one thing after another `until` then."""
        draw = random.Random(seed)
        while time.monotonic() < until:
            case = draw.choice(self.known)
            way = "gradio_client" if case in self.uploading else draw.choice(list(visitor.ways))
            (fate,) = draw.choices(list(FATES), list(FATES.values()))
            stays = {"stays": None, "leaves": draw.uniform(0, LONGEST_STAY), "leaves at once": 0.0}[fate]
            with self._lock:
                number = next(self._numbers)
                self.begun += 1
            begun, said = time.monotonic(), ""
            try:
                outcome = visitor.ways[way](Asked(case.api_name, case.inputs(number), stays, give_up_at))
            except Exception as error:
                outcome, said = outcome_of(error), f"{type(error).__name__}: {error}"
            with self._lock:
                self.ended.append(Ended(way, case.api_name, outcome, said, time.monotonic() - begun))
            if outcome == REFUSED:
                time.sleep(draw.uniform(0, REST_AFTER_REFUSAL))

    def run(self, visitors: Sequence[Visitor], minutes: float, mark: Callable[[str], None]) -> None:
        """Until all clients have ended, or the grace period has."""
        start = time.monotonic()
        until = start + 60 * minutes
        threads = [
            threading.Thread(target=self.visit, args=(visitor, seed, until, until + GRACE), daemon=True)
            for seed, visitor in enumerate(visitors)
        ]
        for thread in threads:
            thread.start()
        for minute in range(1, int(minutes) + 1):
            time.sleep(max(0.0, start + 60 * minute - time.monotonic()))
            mark(f"minute {minute}")
        for thread in threads:
            thread.join(max(0.0, until + GRACE + SILENCE - time.monotonic()))

    def count(self, outcome: str, way: str = "") -> int:
        """Requests that ended so; those that have not ended at all are lost."""
        found = sum(ended.outcome == outcome and way in ("", ended.way) for ended in self.ended)
        return found + (self.begun - len(self.ended) if outcome == LOST and not way else 0)


def at_rest(url: str, seconds: float = 60.0) -> tuple[dict[str, int], int]:
    """What the server still has under way, and which checkpoints are on loan, once that is nothing or time is up."""
    client = connect(url)
    with httpx.Client(base_url=url, trust_env=False, timeout=SILENCE) as plain:
        deadline = time.monotonic() + seconds
        while True:
            report, _ = call(client, "/models", {})
            requests = plain.get("/health").json()["requests"]
            borrows = sum(row["borrows"] for row in report["checkpoints"])
            if (not any(requests.values()) and not borrows) or time.monotonic() > deadline:
                return requests, borrows
            time.sleep(1)


@dataclass(frozen=True)
class Mark:
    """What the server holds at one moment, children included."""

    when: str
    resident: int
    in_use: int
    """Bytes of weights and of prompts kept for the next turn, as it says itself."""
    threads: int


def soak(clients: int, minutes: float, queue: int) -> tuple[str, bool]:
    """The report, and whether nothing was lost, failed or left behind."""
    marks: list[Mark] = []
    with TemporaryDirectory() as folder, suite(SUITE_QUEUE_SIZE=str(queue)) as server:
        files = uploads(Path(folder))
        found = Soak([*cases(), *files], files)

        def mark(when: str) -> None:
            memory = httpx.get(f"{server.url}/health", timeout=SILENCE, trust_env=False).json()["memory"]
            marks.append(Mark(when, server.resident(), memory["bytes_in_use"], server.threads()))
            say(f"{when}: {megabytes(marks[-1].resident)}, {len(found.ended)} requests have ended")

        mark("start")
        works(server, found.known)
        mark("after warm-up")
        with ThreadPoolExecutor(8) as pool:
            visitors = list(pool.map(Visitor, [server.url] * clients))
        found.run(visitors, minutes, mark)
        requests, borrows = at_rest(server.url)
        mark("at rest")
        working = works(server, found.known)
        mark("end")
        account = call(connect(server.url), "/models", {})[0]["endpoints"]
        log = server.log_tail(10**9)
    tracebacks = log.count(TRACEBACK)
    if tracebacks:
        say(f"the server's log, from its first traceback:\n{log[log.index(TRACEBACK) :][:LOG_SHOWN]}")
    left = {**requests, "on loan": borrows}
    wrong = found.count(FAILED) + found.count(LOST) + sum(left.values()) + tracebacks
    setting = f"{clients} clients for {minutes:g} minutes, a queue of {queue}"
    after = (
        f"At rest the server had {', '.join(f'{number} {what}' for what, number in left.items())}. Its own account: "
        f"{own_account(account)}; {tracebacks} tracebacks in its log. Afterwards {working} of {len(found.known)} kinds "
        "of request were answered."
    )
    text = "\n\n".join(["## Soak", machine(), *ended(found, setting), *held(marks), after])
    return text, not wrong and working == len(found.known)


def ended(found: Soak, setting: str) -> list[str]:
    """How the requests ended, as Markdown."""
    ways = sorted({one.way for one in found.ended})
    rows = [[text, *(found.count(name, way) for way in ways), found.count(name)] for name, text in OUTCOMES.items()]
    waits = [one.seconds for one in found.ended if one.outcome == ANSWERED] or [0.0]
    fates = ", ".join(f"{share} % {fate}" for fate, share in FATES.items())
    return [
        f"{setting}; who asks: {fates}. {found.begun:,} requests; answers took {percentile(waits, 0.5):.1f} s (p50), "
        f"{percentile(waits, 0.95):.1f} s (p95).",
        table(["outcome", *ways, "in all"], rows),
        "Said: " + ("; ".join(f"{n} × {text}" for text, n in said(found.ended)) or "nothing") + ".",
    ]


def held(marks: Sequence[Mark]) -> list[str]:
    """The server's memory over time, as Markdown."""
    rows = [[m.when, megabytes(m.resident), megabytes(m.in_use), m.threads] for m in marks]
    minutes = [m for m in marks if m.when.startswith("minute")] or marks[1:2]
    return [
        table(["when", "resident", "of it weights and kept prompts", "threads"], rows),
        f"From after the warm-up to the end {(marks[-1].resident - marks[1].resident) / 1e6:+,.0f} MB, from the first "
        f"minute to the end {(marks[-1].resident - minutes[0].resident) / 1e6:+,.0f} MB.",
    ]


def own_account(endpoints: dict[str, dict[str, float]]) -> str:
    """How many requests ended how, as the server counted them."""
    counted = Counter[str]()
    for row in endpoints.values():
        counted.update({name: int(number) for name, number in row.items() if name != "seconds"})
    return ", ".join(f"{number:,} {outcome}" for outcome, number in sorted(counted.items()))


def works(server: Server, known: Sequence[Case]) -> int:
    """How many of the cases are answered now, asked one by one."""
    client, working = connect(server.url), 0
    for number, case in enumerate(known):
        try:
            call(client, case.api_name, case.inputs(FAR - 1000 + number))
            working += 1
        except Exception as error:
            say(f"{case.title}: {error}")
    return working


def said(all_ended: Sequence[Ended]) -> list[tuple[str, int]]:
    """Messages of refusals and errors with their number, digits left out."""
    return Counter(re.sub(r"[\d.]+", "n", one.said[:160]) for one in all_ended if one.said).most_common(20)


def main(
    clients: Annotated[int, typer.Option(help="Clients at once.")] = 64,
    minutes: Annotated[float, typer.Option(help="How long they ask.")] = 5.0,
    queue: Annotated[int, typer.Option(help="Requests that may wait; 0 takes a few less than would suffice.")] = 0,
    write: Annotated[Path | None, typer.Option(help="Also put the report into this Markdown file.")] = None,
) -> None:
    """Many clients that cancel and hang up as they like. Ends with 1 where anything was lost, failed or left behind."""
    text, good = soak(clients, minutes, queue or max(1, clients * 7 // 8 - 8))
    print(text)
    if write is not None:
        write_section(write, "soak", text)
    raise typer.Exit(0 if good else 1)


if __name__ == "__main__":
    typer.run(main)
