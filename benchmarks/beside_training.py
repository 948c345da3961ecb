"""What a training run beside them costs the demos, and they it: `python -m benchmarks.beside_training`.

The suite's endpoints are asked by one client alone, then beside a run that gives way (`--background`, as the
Fine-tuning tab starts it), then beside one that does not (as from a terminal), then alone again.
"""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from benchmarks import ROOT
from benchmarks.load import burst, connect
from benchmarks.report import machine, milliseconds, say, table, write_section
from benchmarks.server import Server
from benchmarks.workload import Case, cases
from finetune.recipe import Recipe, read_recipe
from finetune.run_folder import Run, run_of
from shared.settings import Settings

README = ROOT / "finetune" / "README.md"
RECIPE, CHANGES = "topics", ("name=beside", "training.max_steps=100000")
ENDPOINTS = ("/zero_shot", "/sentiment", "/translate", "/generate")
WARM_STEPS = 5
IDLE_SECONDS = 15.0
EACH = 12
LONGEST = 60.0
"""Seconds for one endpoint in one state."""

NOTES = (
    "One client, one call after another; medians. *s/step*: of the training run, without and with that load on the "
    "demos. *gives way* is what the Fine-tuning tab and `--background` start: the lowest priority."
)


def main() -> None:
    """Measure, and write the table."""
    chosen = [next(case for case in cases() if case.api_name == name) for name in ENDPOINTS]
    columns: dict[str, list[float]] = {}
    steps: dict[str, tuple[float, float]] = {}
    with Server(["app.py"], SUITE_WARM_EXAMPLES="0", SUITE_PROFILE="embedded") as server:
        for case in chosen:
            measure(server.url, case, 2)  # loads and warms
        for title, flags in {
            "alone": None,
            "beside one that gives way": ["--background"],
            "beside one that does not": [],
            "alone again": None,
        }.items():
            say(title)
            if flags is None:
                columns[title] = [measure(server.url, case, EACH) for case in chosen]
                continue
            with training(flags) as run:
                idle = seconds_per_step(run, IDLE_SECONDS)
                before = len(run.entries())
                columns[title] = [measure(server.url, case, EACH) for case in chosen]
                steps[title] = idle, median_step(run, before)
    rows = [[case.api_name, *(milliseconds(values[i]) for values in columns.values())] for i, case in enumerate(chosen)]
    rows.append(["training, s/step", *(f"{steps[t][0]:.2f}, {steps[t][1]:.2f}" if t in steps else "" for t in columns)])
    write_section(README, "beside", "\n\n".join([machine(), table(["", *columns], rows), NOTES]))


def measure(url: str, case: Case, each: int) -> float:
    """Median seconds of a call."""
    found = burst([connect(url)], case.api_name, case.inputs, each, LONGEST)
    if found.failures:
        raise SystemExit(f"{case.api_name} failed: {found.failures[0]}")
    return found.p(0.5)


@contextmanager
def training(flags: Sequence[str]) -> Iterator[Run]:
    """A run that trains until the end of the block, in a cache of its own with the real weights in it."""
    recipe: Recipe = read_recipe(RECIPE, CHANGES)
    real = Settings()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("weights", "converted", "corpora"):
            (Path(folder) / name).symlink_to(real.cache_dir / name)
        run = run_of(recipe, real.model_copy(update={"cache_dir": Path(folder)}))
        sets = [part for change in CHANGES for part in ("--set", change)]
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune", RECIPE, *sets, "--skip-evaluation", *flags],
            cwd=ROOT,
            env={**os.environ, "SUITE_CACHE_DIR": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            while run.status().step < WARM_STEPS:
                if process.poll() is not None:
                    raise SystemExit("the training run ended early")
                time.sleep(0.5)
            yield run
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def seconds_per_step(run: Run, seconds: float) -> float:
    before = len(run.entries())
    time.sleep(seconds)
    return median_step(run, before)


def median_step(run: Run, since: int) -> float:
    at = [entry["seconds"] for entry in run.entries() if "loss" in entry][max(0, since - 1) :]
    return statistics.median([later - earlier for earlier, later in itertools.pairwise(at)] or [float("nan")])


if __name__ == "__main__":
    typer.run(main)
