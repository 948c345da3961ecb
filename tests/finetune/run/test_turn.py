"""One training at a time: who waits, for whom, and what becomes of the line when a process dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from finetune.run import turn as turns
from finetune.run.turn import queued_runs, turn
from finetune.run_folder import Run, runs_folder
from shared.settings import Settings

ROOT = Path(__file__).parents[3]

TAKE = """
import sys, time
from finetune.run_folder import Run
from finetune.run.turn import turn
from shared.settings import Settings

settings = Settings()
run = Run(settings.cache_dir / "runs" / sys.argv[1])
with turn(run, settings, lambda earlier: print("after", *earlier, flush=True)):
    print("mine", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache")


@contextmanager
def another(name: str, settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A process that takes a ticket, says for whom it waits, and has its turn until a line comes."""
    environment = {**os.environ, "SUITE_CACHE_DIR": str(settings.cache_dir)}
    with subprocess.Popen(
        [sys.executable, "-c", TAKE, name],
        cwd=ROOT,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_who_comes_later_waits(own: Settings) -> None:
    first, waited = Run(runs_folder(own) / "first-1"), []
    with turn(first, own, waited.append):
        assert queued_runs(own) == ["first-1"]
        with another("second-2", own) as second:
            assert said(second) == "after first-1"
            assert queued_runs(own) == ["first-1", "second-2"]
            with pytest.raises(KeyboardInterrupt), turn(Run(runs_folder(own) / "third-3"), own, interrupt):
                pytest.fail("it was not its turn")
            assert queued_runs(own) == ["first-1", "second-2"]
    assert waited == []


def test_the_next_has_its_turn_when_the_first_is_done(own: Settings) -> None:
    with turn(Run(runs_folder(own) / "first-1"), own, lambda _: None):
        second = another("second-2", own)
        process = second.__enter__()
        assert said(process) == "after first-1"
    while (line := said(process)) != "mine":
        assert line == "after first-1"
    process.communicate("\n")
    second.__exit__(None, None, None)
    assert queued_runs(own) == []


def test_a_dead_process_keeps_nobody_waiting(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "GRACE_SECONDS", 0.0)
    with another("killed-1", own) as process:
        assert said(process) == "mine"
        assert queued_runs(own) == ["killed-1"]
        process.kill()
        process.wait()
        with turn(Run(runs_folder(own) / "next-2"), own, lambda _: pytest.fail("it waits for a dead process")):
            assert queued_runs(own) == ["next-2"]


def test_a_ticket_that_is_just_being_taken_counts(own: Settings) -> None:
    turns.queue_folder(own).mkdir(parents=True)
    (turns.queue_folder(own) / f"{time.time_ns():020d}-coming-1").touch()
    assert queued_runs(own) == ["coming-1"]


def interrupt(earlier: list[str]) -> None:
    assert earlier == ["first-1", "second-2"]
    raise KeyboardInterrupt
