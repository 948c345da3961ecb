"""A CSV of a thousand rows through `/batch`, against the naive peer called once a row."""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradio_client import Client, handle_file

from benchmarks.bars import Section
from benchmarks.load import call
from benchmarks.pair import Pair
from benchmarks.quality_labels import TOPICS
from benchmarks.report import say, table
from benchmarks.stats import spread
from benchmarks.workload import english, reviews, topics

ROWS, QUICK_ROWS = 1000, 32
ROUNDS = 2
PEER_SECONDS = 6.0
"""How long the peer is asked in a round; it answers row after row, so a part says its rate."""
FAR = 200_000
CSV_SECONDS = 600.0


@dataclass(frozen=True)
class Task:
    name: str
    text: Callable[[int], str]
    settings: dict[str, Any]


TASKS = (
    Task("zero_shot", topics, {"candidate_labels": TOPICS}),
    Task("sentiment", reviews, {}),
    Task("translate", english, {}),
)


def section(pair: Pair, quick: bool) -> Section:
    rows, figures = [], {}
    count = QUICK_ROWS if quick else ROWS
    for task in TASKS:
        ours, theirs, asked = [], [], 0
        answered(pair.suite_clients[0], task, FAR - 16, 16)
        for number in range(1 if quick else ROUNDS):
            say(f"CSV, {task.name}, round {number + 1}")
            first = FAR + number * ROWS
            ours.append(count / answered(pair.suite_clients[0], task, first, count))
            done, seconds = in_a_loop(pair.peer_clients[0], task, first, 1.0 if quick else PEER_SECONDS)
            theirs.append(done / seconds)
            asked += done
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        figures[f"csv: {task.name}"] = ratios
        rows.append([task.name, str(count), spread(ours), str(asked), spread(theirs), spread(ratios)])
    text = (
        f"### A CSV of {count:,} rows\n\n`/batch` through `gradio_client`, one client, upload and download included, "
        f"against the naive peer called once a row by one client. The peer was asked as many rows as it answered in "
        f"{PEER_SECONDS:.0f} s a round, not all.\n\n"
        + table(["task", "rows", "suite, rows/s", "peer's rows", "peer, rows/s", "ratio"], rows)
    )
    return Section(text, figures)


def answered(client: Client, task: Task, first: int, count: int) -> float:
    """Seconds in which the suite answered every row of a table. Raises `RuntimeError` where one is missing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text"])
            writer.writerows([task.text(first + number)] for number in range(count))
        begun = time.perf_counter()
        job = client.submit(task=task.name, file=handle_file(str(path)), settings=task.settings, api_name="/batch")
        table_url, run = job.result(timeout=CSV_SECONDS)
        taken = time.perf_counter() - begun
    if not table_url or not run.get("engine"):
        raise RuntimeError(f"/batch gave no table for {task.name}")
    return taken


def in_a_loop(client: Client, task: Task, first: int, seconds: float) -> tuple[int, float]:
    """How many rows the peer answered, and in how many seconds."""
    begun = time.perf_counter()
    done = 0
    while done < ROWS and time.perf_counter() - begun < seconds:
        call(client, f"/{task.name}", {"text": task.text(first + done), **task.settings})
        done += 1
    return done, time.perf_counter() - begun
