"""What the command line does, start to end: train, measure, keep, publish. Each step says what it found."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from finetune import evaluation, processes
from finetune.base import shared_parts
from finetune.estimate import duration, estimate
from finetune.evaluation import EVALUATION
from finetune.failures import told
from finetune.loading import Trained, base_of, facts_of, find_trained, load_trained
from finetune.loss_curve import draw
from finetune.recipe import Recipe
from finetune.runs import Run, run_of
from finetune.train import Prepared, Stopped, prepare, read_parts, train
from shared.context import Runtime
from shared.errors import SuiteError
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
    with shared_parts(settings) as runtime:
        try:
            prepared, _ = train(recipe, run, runtime, resume=resume, progress=Line(), say=say)
        except Stopped:
            say(f"stopped at step {run.status().step}; go on with: python -m finetune {recipe.name} --resume")
            raise SystemExit(130) from None
        if not processes.first():
            return
        status = run.status()
        say(f"trained {status.step} steps in {duration(status.seconds)}; at most {status.peak_memory / 1e9:.1f} GB")
        draw(run.entries(), run.result / "loss.png", recipe.title)
        if measure:
            say(evaluation.as_table(measure_result(prepared, run, runtime)))
    if recipe.saves == "adapter":
        say(f"the suite offers it now as {recipe.base}+{keep(recipe, run, settings)}")
    if push_to_hub:
        publish_result(run.result, push_to_hub, settings, private=private, force=force)


def measure_result(prepared: Prepared, run: Run, runtime: Runtime) -> dict[str, Any]:
    status = run.status()
    status.state = "evaluating"
    run.write(status)
    trained = Trained(
        run.result, prepared.recipe, prepared.labels, prepared.task, prepared.processor, prepared.model.eval()
    )
    try:
        with told(prepared.recipe, run.folder):
            done = evaluation.evaluate(prepared.recipe, prepared.parts, trained, runtime, prepared.base, say)
            return evaluation.write(done, run.result)
    finally:
        status.state = "done"  # of the training, even where it could not be measured
        run.write(status)


def keep(recipe: Recipe, run: Run, settings: Settings) -> str:
    """Puts the adapter where the suite finds it, in one step; returns its name."""
    name = recipe.publishing.name or recipe.name
    final = settings.cache_dir / ADAPTERS / name
    building = final.with_name(f".{name}.part")
    shutil.rmtree(building, ignore_errors=True)
    shutil.copytree(run.result, building)
    old = final.with_name(f".{name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    building.rename(final)
    shutil.rmtree(old, ignore_errors=True)
    return name


def dry(recipe: Recipe, settings: Settings) -> None:
    """Everything up to the first step: rows, splits, estimate. Writes nothing."""
    with shared_parts(settings) as runtime, told(recipe, settings.cache_dir):
        prepared = prepare(recipe, runtime, Line())
        expected = estimate(prepared)
    rows = ", ".join(f"{count:,} {what}" for what, count in prepared.facts["rows"].items())
    say(f"{recipe.title}: {recipe.base}, {recipe.method.name}\nrows: {rows}\n{expected.in_words()}")
    if prepared.labels:
        say(f"labels: {', '.join(prepared.labels)}")


def evaluate_again(checkpoint: str, settings: Settings) -> None:
    with shared_parts(settings) as runtime:
        trained = load_trained(checkpoint, None, runtime)
        parts = read_parts(trained.recipe, runtime, Line())
        base = base_of(facts_of(trained.folder), runtime)
        done = evaluation.evaluate(trained.recipe, parts, trained, runtime, base, say)
    say(evaluation.as_table(evaluation.write(done, trained.folder)))


def compare_results(one: str, other: str, settings: Settings) -> None:
    """The figures of two results; those of other rows are not compared. Raises `SuiteError`."""
    with shared_parts(settings) as runtime:
        folders = [find_trained(name, runtime) for name in (one, other)]
    found = [measured(folder) for folder in folders]
    facts = [facts_of(folder) for folder in folders]
    if facts[0]["recipe"]["data"] != facts[1]["recipe"]["data"]:
        say("note: these were measured on different rows")
    lines = [f"| | {' | '.join(str(name) for name in (one, other))} |", "|---|---|---|"]
    for name in found[0]["systems"][-1]["metrics"]:
        values = [content["systems"][-1]["metrics"].get(name) for content in found]
        lines.append(f"| {name} | " + " | ".join("" if v is None else f"{v:.3f}" for v in values) + " |")
    rows: list[tuple[str, Any]] = [
        ("method", lambda f: f["recipe"]["method"]["name"]),
        ("trainable parameters", lambda f: f"{f['status']['trainable']:,}"),
        ("seconds", lambda f: f"{f['status']['seconds']:.0f}"),
        ("peak memory, GB", lambda f: f"{f['status']['peak_memory'] / 1e9:.2f}"),
    ]
    lines += [f"| {name} | {value(facts[0])} | {value(facts[1])} |" for name, value in rows]
    say("\n".join(lines))


def publish_result(checkpoint: str | Path, repo: str, settings: Settings, *, private: bool, force: bool) -> None:
    from finetune.publish import publish

    with shared_parts(settings) as runtime:
        folder = find_trained(checkpoint, runtime)
        if not force and not measured(folder)["beats_base"]:
            raise SuiteError(f"{measured(folder)['verdict']} Nothing was published.")
        say(f"published: {publish(folder, repo, runtime, private=private, say=say)}")


def measured(folder: Path) -> dict[str, Any]:
    """Raises `SuiteError` where nothing was measured."""
    try:
        return json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SuiteError(
            f"{folder.name} was not measured; run `python -m finetune evaluate {folder}` first", field="checkpoint"
        ) from None


def say(text: str) -> None:
    if processes.first():
        print(text, flush=True)


class Line:
    """Progress on one line of the terminal; in a log, a line for each part, and each tenth of the training."""

    def __init__(self) -> None:
        self._last: tuple[str, int] = ("", -1)

    def __call__(self, what: str, done: int, total: int) -> None:
        if not processes.first():
            return
        tenth = 10 * done // total if total and what == "training" else 0
        if sys.stderr.isatty():
            of = f" {done:,} of {total:,}" if total else ""
            print(f"\r\x1b[K{what}{of}", end="" if done < total else "\n", file=sys.stderr, flush=True)
        elif (what, tenth) != self._last:
            self._last = what, tenth
            print(f"{what} {done:,} of {total:,}" if tenth else what, file=sys.stderr, flush=True)
