"""What the command line does, start to end: train, measure, keep, publish. Each step says what it found."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from finetune import processes
from finetune.base import shared_parts
from finetune.data.split import Parts
from finetune.recipe import Recipe
from finetune.results import evaluation, metrics
from finetune.results.loading import TRAINING, Trained, base_of, facts_of, find_trained, load_trained
from finetune.results.loss_curve import draw
from finetune.rows import read_parts
from finetune.run.estimate import estimate
from finetune.run.failures import errors_in_words
from finetune.run.prepared import Prepared, prepare
from finetune.run.train import Stopped, train
from finetune.run.turn import turn
from finetune.run_folder import EVALUATION, Run, duration, run_of
from shared.atomic import atomic_folder
from shared.errors import SuiteError
from shared.serving.runtime import Runtime
from shared.settings import Settings

ADAPTERS = "adapters"


def run_job(
    recipe: Recipe,
    settings: Settings,
    *,
    resume: bool = False,
    push_to_hub: str = "",
    force: bool = False,
    private: bool = True,
    measure: bool = True,
) -> None:
    """Trains, measures, keeps and publishes. Raises `SuiteError`; ends the process with 130 after a stop."""
    run = run_of(recipe, settings)
    say(f"{recipe.title}: {recipe.base}, {recipe.method.name} → {run.folder}")
    try:
        if measure:
            metrics.require(recipe.evaluation.metrics)
        with turn_of(run, settings), shared_parts(settings) as runtime:
            trained, parts = trained_model(recipe, run, runtime, resume)
            if not processes.is_main_process():
                return
            if measure:
                say(evaluation.as_table(measure_result(trained, parts, run, runtime)))
            if recipe.saves == "adapter":
                say(f"the suite offers it now as {recipe.base}+{install_adapter(recipe, run, settings)}")
    except Stopped:
        run.update(state="done" if run.evaluation() else "stopped", what="")
        say(f"stopped at step {run.status().step}; go on with: python -m finetune {recipe.name} --resume")
        raise SystemExit(130) from None
    if push_to_hub:
        publish_result(run.result, push_to_hub, settings, private=private, force=force)


@contextlib.contextmanager
def turn_of(run: Run, settings: Settings) -> Iterator[None]:
    """Holds the run, and waits for its turn. Of several processes of one run, the first does."""
    if not processes.is_main_process():
        yield
        return
    with run.locked(), turn(run, settings, QueueStatus(run)):
        yield


def trained_model(recipe: Recipe, run: Run, runtime: Runtime, resume: bool) -> tuple[Trained, Parts]:
    """The tuned model. Where a run was cut short while it was measured, the one that is there already."""
    if resume and (run.result / TRAINING).is_file():
        say("it was trained already; going on with what is left")
        if run.stop_file.exists():
            raise Stopped
        return load_trained(run.result, None, runtime), read_parts(recipe, runtime, ProgressLine())
    prepared, _ = train(recipe, run, runtime, resume=resume, progress=ProgressLine(), say=say)
    if processes.is_main_process():
        status = run.status()
        say(f"trained {status.step} steps in {duration(status.seconds)}; at most {status.peak_memory / 1e9:.1f} GB")
        draw(run.entries(), run.result / "loss.png", recipe.title)
    return as_trained(prepared, run), prepared.parts


def as_trained(prepared: Prepared, run: Run) -> Trained:
    """The tuned model as it is in memory."""
    model = prepared.model.eval()
    return Trained(run.result, prepared.recipe, prepared.labels, prepared.task, prepared.processor, model)


def measure_result(trained: Trained, parts: Parts, run: Run, runtime: Runtime) -> dict[str, Any]:
    def report(text: str) -> None:
        if run.stop_file.exists():
            raise Stopped
        say(text)
        run.update(state="evaluating", what=text, pid=os.getpid(), error="")

    report("measuring")
    try:
        with errors_in_words(trained.recipe, run.folder):
            base = base_of(facts_of(trained.folder), runtime)
            done = evaluation.evaluate(trained.recipe, parts, trained, runtime, base, report)
            content = evaluation.write(done, run.result)
    except SuiteError as error:
        run.update(state="done", what="", error=f"it was trained, but could not be measured: {error}")
        raise
    run.update(state="done", what="")
    return content


class QueueStatus:
    """Says once for whom the run waits, keeps its status true, and obeys a stop."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._said: list[str] = []

    def __call__(self, earlier: list[str]) -> None:
        if self.run.stop_file.exists():
            raise Stopped
        if earlier != self._said:
            self._said = earlier
            self.run.update(state="waiting", what=f"waiting for {', '.join(earlier)}", pid=os.getpid())
            say(f"waiting: {', '.join(earlier)} came earlier, and one training at a time is all this machine should do")


def install_adapter(recipe: Recipe, run: Run, settings: Settings) -> str:
    """Copies the adapter to where the suite finds it, in one step, and returns its name.

    Raises `SuiteError`, whose text the run's status then holds too.
    """
    name = recipe.publishing.name or recipe.name
    final = settings.cache_dir / ADAPTERS / name
    try:
        with errors_in_words(recipe, run.folder), atomic_folder(final) as part:
            shutil.copytree(run.result, part, dirs_exist_ok=True)
    except SuiteError as error:
        run.update(error=f"it was trained, but could not be put where the suite finds it: {error}")
        raise
    return name


def preview(recipe: Recipe, settings: Settings) -> None:
    """Everything up to the first step: rows, splits, estimate. Writes nothing."""
    with shared_parts(settings) as runtime, errors_in_words(recipe, settings.cache_dir):
        prepared = prepare(recipe, runtime, ProgressLine())
        expected = estimate(prepared)
    rows = ", ".join(f"{count:,} {what}" for what, count in prepared.facts["rows"].items())
    say(f"{recipe.title}: {recipe.base}, {recipe.method.name}\nrows: {rows}\n{expected.summary()}")
    if prepared.labels:
        say(f"labels: {', '.join(prepared.labels)}")


def evaluate_again(checkpoint: str, settings: Settings) -> None:
    with shared_parts(settings) as runtime:
        trained = load_trained(checkpoint, None, runtime)
        parts = read_parts(trained.recipe, runtime, ProgressLine())
        base = base_of(facts_of(trained.folder), runtime)
        done = evaluation.evaluate(trained.recipe, parts, trained, runtime, base, say)
    say(evaluation.as_table(evaluation.write(done, trained.folder)))


def compare_results(one: str, other: str, settings: Settings) -> None:
    """Prints the figures of two results side by side. Raises `SuiteError`."""
    with shared_parts(settings) as runtime:
        folders = [find_trained(name, runtime) for name in (one, other)]
    rows, note = comparison(*folders)
    if note:
        say(f"note: {note}")
    lines = [f"| | {one} | {other} |", "|---|---|---|", *("| " + " | ".join(row) + " |" for row in rows)]
    say("\n".join(lines))


def comparison(one: Path, other: Path) -> tuple[list[tuple[str, str, str]], str]:
    """Rows of name and both values, and what must be known to read them. Raises `SuiteError`."""
    found = [read_evaluation(folder) for folder in (one, other)]
    facts = [facts_of(folder) for folder in (one, other)]
    figures = [content["systems"][-1]["metrics"] for content in found]
    names = dict.fromkeys(name for values in figures for name in values)
    cells = [[f"{values[name]:.3f}" if name in values else "" for values in figures] for name in names]
    rows = [(name, pair[0], pair[1]) for name, pair in zip(names, cells, strict=True)]
    for name, value in FACTS.items():
        rows.append((name, value(facts[0]), value(facts[1])))
    same = facts[0]["recipe"]["data"] == facts[1]["recipe"]["data"]
    return rows, "" if same else "these were measured on different rows"


FACTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "method": lambda facts: facts["recipe"]["method"]["name"],
    "trainable parameters": lambda facts: f"{facts['status']['trainable']:,}",
    "seconds": lambda facts: f"{facts['status']['seconds']:.0f}",
    "peak memory, GB": lambda facts: f"{facts['status']['peak_memory'] / 1e9:.2f}",
}


def publish_result(
    checkpoint: str | Path, repo: str, settings: Settings, *, private: bool, force: bool, token: str | None = None
) -> None:
    """`token` is used for this once; without it the Hub's client knows one. Raises `SuiteError`."""
    from finetune.results.publish import publish

    with shared_parts(settings) as runtime:
        folder = find_trained(checkpoint, runtime)
        if not force and not read_evaluation(folder)["beats_base"]:
            raise SuiteError(f"{read_evaluation(folder)['verdict']} Nothing was published.")
        say(f"published: {publish(folder, repo, runtime, private=private, say=say, token=token)}")


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Raises `SuiteError` where nothing was measured."""
    try:
        return json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SuiteError(
            f"{folder.name} was not measured; run `python -m finetune evaluate {folder}` first", field="checkpoint"
        ) from None


def say(text: str) -> None:
    if processes.is_main_process():
        print(text, flush=True)


class ProgressLine:
    """Progress on one line of the terminal; in a log, a line for each part, and each tenth of the training."""

    def __init__(self) -> None:
        self._last: tuple[str, int] = ("", -1)

    def __call__(self, what: str, done: int, total: int) -> None:
        if not processes.is_main_process():
            return
        tenth = 10 * done // total if total and what == "training" else 0
        if sys.stderr.isatty():
            of = f" {done:,} of {total:,}" if total else ""
            print(f"\r\x1b[K{what}{of}", end="" if done < total else "\n", file=sys.stderr, flush=True)
        elif (what, tenth) != self._last:
            self._last = what, tenth
            print(f"{what} {done:,} of {total:,}" if tenth else what, file=sys.stderr, flush=True)
