"""Runs in a process of their own, which outlives the page that started them and the suite."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import psutil

from finetune.recipe import Recipe
from finetune.run_folder import Run, run_of, runs_folder, write_atomically
from shared.atomic import atomic_file
from shared.errors import Busy, SuiteError
from shared.settings import Settings

ROOT = Path(__file__).resolve().parents[2]

OUTPUT = "output.log"
"""What the process prints, in the run's folder."""

LOWEST = 19
"""The `nice` value of who gives way to everybody."""

AUTOGROUP = Path("/proc/self/autogroup")

SECRETS = ("SUITE_ADMIN_TOKEN", "SUITE_AUTH")

_STARTING = threading.Lock()


def start(recipe: Recipe, settings: Settings, *, resume: bool = False) -> Run:
    """Starts the run, or has it wait for its turn. Raises `Busy` where it is at work already.

    Returns when the process has the run, a few seconds later.
    """
    run = run_of(recipe, settings)
    with _STARTING:
        if run.alive():
            raise Busy(f"{recipe.name} with these settings is at work already; look at it beside this form")
        run.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(run.folder / "recipe.yaml", recipe.to_yaml())
        if not resume:
            (run.folder / "status.json").unlink(missing_ok=True)
        run.update(state="waiting", what="starting", pid=0, error="")
        with (run.folder / OUTPUT).open("wb") as output:
            process = subprocess.Popen(
                command("train", run.folder / "recipe.yaml", "--background", *(["--resume"] if resume else [])),
                cwd=ROOT,
                env=environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        threading.Thread(target=process.wait, name="training", daemon=True).start()  # reaps it
        while process.returncode is None and not run.alive():
            time.sleep(0.05)
    return run


def stop(run: Run) -> None:
    """Has the run stop after its step, from where it can be resumed. What is being measured is cut short."""
    run.stop_file.touch()
    status = run.status()
    if status.state == "evaluating" and run.alive() and _is_training(status.pid):
        with contextlib.suppress(OSError):
            os.kill(status.pid, signal.SIGTERM)


def _is_training(pid: int) -> bool:
    """Whether this process is one of ours alone, and no notebook that trains."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).cmdline()[1:3] == ["-m", "finetune"]
    return False


def lower_priority() -> None:
    """Gives way to whatever else wants the processor: training takes what the demos leave."""
    windows = getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", None)
    psutil.Process().nice(LOWEST if windows is None else windows)
    # Linux may weigh a session as a whole. A run has one of its own; an estimate has that of the suite, and of whoever
    # started it, all of which would give way with it.
    if windows is None and os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            AUTOGROUP.write_text(str(LOWEST))


def keep_upload(path: Path, settings: Settings) -> Path:
    """Copies rows that somebody uploaded to where they outlive the page. The same bytes are kept once."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    kept = runs_folder(settings) / "uploads" / digest.hexdigest()[:16] / path.name
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_file(kept) as part:
                shutil.copyfile(path, part)
        except OSError as error:
            raise SuiteError(f"{path.name} could not be kept: {error.strerror or error}") from None
    return kept


def command(*arguments: str | Path) -> list[str]:
    """Paths are made whole: it runs in the project's folder, wherever the suite was started."""
    whole = (argument.absolute() if isinstance(argument, Path) else argument for argument in arguments)
    return [sys.executable, "-m", "finetune", *map(str, whole)]


def environment(settings: Settings) -> dict[str, str]:
    """The settings of this suite, which may have come by its command line."""
    return {
        **{name: value for name, value in os.environ.items() if name not in SECRETS},
        "OMP_NUM_THREADS": str(settings.cores),
        "SUITE_CACHE_DIR": str(settings.cache_dir.absolute()),
        "SUITE_PROFILE": settings.profile,
        "SUITE_MODELS": ",".join(settings.models),
        "PYTHONUNBUFFERED": "1",
    }


def log_tail(run: Run, lines: int = 12) -> str:
    """The end of what its process printed."""
    try:
        with (run.folder / OUTPUT).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    kept: Sequence[str] = [line.rpartition("\r")[2] for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join(kept)
