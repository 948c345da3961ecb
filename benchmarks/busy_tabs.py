"""Two busy tabs: whether two models at once are slower than one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from benchmarks.bars import Section
from benchmarks.csv_rows import Task, answered
from benchmarks.load import call
from benchmarks.pair import Pair
from benchmarks.quality_labels import TOPICS
from benchmarks.report import say, table
from benchmarks.stats import spread
from benchmarks.workload import NEW_TOKENS, english, openings, topics

ROUNDS = 2
WRITERS = 2
"""Clients that let text be generated at once, in the first tab."""
FAR = 300_000
TABS = (Task("translate", english, {}), Task("zero_shot", topics, {"candidate_labels": TOPICS}))


def section(pair: Pair, quick: bool) -> Section:
    rows, figures = [], []
    calls = 1 if quick else 3
    for tab in TABS:
        count = rows_as_long_as(pair, tab, seconds_of(generating(pair, calls, FAR)), 2000 if not quick else 200)
        alone, with_other, ratios = [], [], []
        for number in range(1 if quick else ROUNDS):
            say(f"two busy tabs, generate and {tab.name}, round {number + 1}")
            first = FAR + 5_000 * (number + 1)
            writing, reading = generating(pair, calls, first), table_of(pair, tab, first, count)
            alone.append(seconds_of(writing) + seconds_of(reading))
            writing, reading = generating(pair, calls, first + 100), table_of(pair, tab, first + 2_000, count)
            with_other.append(seconds_of(writing, reading))
            ratios.append(with_other[-1] / alone[-1])
        figures += ratios
        rows.append([f"generate, {WRITERS} clients × {calls} × {NEW_TOKENS} tokens + {tab.name}, {count} rows",
                     spread(alone), spread(with_other), spread(ratios)])  # fmt: skip
    text = (
        "### Two busy tabs\n\nOne tab writes while another answers a table, each sized to take about as long as the "
        "other alone. Seconds; *ratio* below 1: at once is faster than one after the other.\n\n"
        + table(["tabs", "one after the other", "at once", "ratio"], rows)
    )
    return Section(text, {"tabs: together over in turn": figures})


def generating(pair: Pair, calls: int, first: int) -> Callable[[], None]:
    def one(place: int) -> None:
        for turn in range(calls):
            number = first + place * calls + turn
            inputs = {"prompt": openings(number), "max_new_tokens": NEW_TOKENS}
            call(pair.suite_clients[place], "/generate", inputs)

    return lambda: at_once([lambda place=place: one(place) for place in range(WRITERS)])


def table_of(pair: Pair, task: Task, first: int, count: int) -> Callable[[], object]:
    return lambda: answered(pair.suite_clients[-1], task, first, count)


def rows_as_long_as(pair: Pair, task: Task, seconds: float, most: int) -> int:
    """Rows of the table that take about so long."""
    few = 64
    answered(pair.suite_clients[-1], task, FAR - 128, few)
    taken = answered(pair.suite_clients[-1], task, FAR - 64, few)
    return max(few, min(most, int(few * seconds / taken)))


def seconds_of(*jobs: Callable[[], object]) -> float:
    begun = time.perf_counter()
    at_once(jobs)
    return time.perf_counter() - begun


def at_once(jobs: list[Callable[[], object]] | tuple[Callable[[], object], ...]) -> None:
    """Runs each in a thread until all have ended. Raises what the first of them raised."""
    failures: list[BaseException] = []

    def run(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
