"""Runs as HTML: where one is, its curves, what was measured. Texts from outside are escaped here or in `render`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any

from finetune.recipe import Recipe
from finetune.run.background import log_tail
from finetune.run.turn import queued_runs
from finetune.run_folder import Run, Status, duration
from shared.errors import SuiteError
from shared.page import render
from shared.settings import Settings

WIDTH, HEIGHT, LEFT, BOTTOM = 460, 170, 40, 22
"""Of a curve's picture, in its own units, and of its margins."""

SMOOTHING = 0.9
"""Weight of what was before, in the running mean of the loss."""

HEADLINES = {
    "waiting": "Waiting for its turn",
    "preparing": "Preparing",
    "training": "Training",
    "evaluating": "Trained; being measured",
    "done": "Done",
    "stopped": "Stopped",
    "failed": "Failed",
    "dead": "Ended without a word",
}


def menu_line(run: Run) -> str:
    """For the menu: name, state, when."""
    age = max(0.0, time.time() - run.status().updated)
    when = "now" if age < 60 else f"{duration(age)} ago"
    return f"{run.folder.name.rpartition('-')[0]} · {HEADLINES[run.state()].lower()} · {when}"


def draw_run(run: Run, settings: Settings) -> str:
    """Everything there is to see of a run."""
    try:
        recipe = run.recipe
    except SuiteError as error:
        return render.shown(render.problem(SuiteError(f"this run's recipe cannot be read here: {error.message}")))
    status, state = run.status(), run.state()
    parts = [f"<h3>{escape(recipe.title)}</h3>", f'<p class="answer">{HEADLINES[state]}{_of_steps(status, state)}</p>']
    parts.append(progress(run, status, state, settings))
    entries = run.entries()
    parts.append(curve(entries, "loss", "validation_loss", "loss"))
    parts.append(curve(entries, "", "validation_accuracy", "accuracy on the validation rows"))
    parts.append(before_and_after(run))
    if status.trainable:
        parts.append(
            f'<div class="run-line"><b>{escape(recipe.base)}</b> · {recipe.method.name} · {status.trainable:,} of '
            f"{status.parameters:,} parameters learn · {duration(status.seconds)} · at most "
            f"{status.peak_memory / 1e9:.1f} GB</div>"
        )
    return render.shown("".join(parts))


def _of_steps(status: Status, state: str) -> str:
    if not status.steps or state not in ("training", "stopped", "failed", "dead"):
        return ""
    return f": step {status.step:,} of {status.steps:,}"


def progress(run: Run, status: Status, state: str, settings: Settings) -> str:
    """A bar with the time that is left, or why there is nothing to wait for."""
    if state == "waiting":
        line = queued_runs(settings)
        place = line.index(run.folder.name) if run.folder.name in line else 0
        before = f"{place} before it: {', '.join(line[:place])}" if place else "starting"
        return render.progress(f"One training at a time; {before}")
    if state == "training":
        left = f", about {duration(status.seconds_left)} left" if status.seconds_left else ""
        loss = f", loss {status.loss:.3f}" if status.loss is not None else ""
        return render.progress(f"{duration(status.seconds)} so far{left}{loss}", status.step / max(1, status.steps))
    if state == "done" and status.error:
        return render.problem(SuiteError(status.error))
    if state in ("preparing", "evaluating"):
        return render.progress(render.sentence(status.what or "working"))
    if state == "failed":
        return render.problem(SuiteError(status.error or "nobody knows why"))
    if state == "dead":
        words = log_tail(run)
        said = f"<pre>{escape(words)}</pre>" if words else ""
        return (
            '<div class="problem" role="alert">Its process is gone: killed, out of memory, or the machine was switched '
            f'off. Resume goes on from its last checkpoint.</div><div class="what">{said}</div>'
        )
    return ""


def curve(entries: Sequence[dict[str, Any]], dense: str, sparse: str, title: str) -> str:
    """A measure of each step, thin and smoothed, and one of some steps, with dots. Nothing before the second point."""
    thin = _points(entries, dense)
    dotted = _points(entries, sparse)
    if len(thin) + len(dotted) < 2:
        return ""
    steps = [x for x, _ in thin + dotted]
    values = [y for _, y in thin + dotted]
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    first, last = min(0, *steps), max(*steps, 1)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 8) * (point[0] - first) / (last - first)
        y = 8 + (HEIGHT - BOTTOM - 8) * (high - point[1]) / (high - low)
        return round(x, 1), round(y, 1)

    def line(points: Sequence[tuple[float, float]], kind: str) -> str:
        path = " ".join(f"{x},{y}" for x, y in map(place, points))
        return f'<polyline class="{kind}" points="{path}"/>' if len(points) > 1 else ""

    dots = "".join(f'<circle class="dot" cx="{x}" cy="{y}" r="3.5"/>' for x, y in map(place, dotted))
    marks = "".join(
        f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{value:.2g}</text>'
        f'<line class="rule" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y}" y2="{y}"/>'
        for value in (high, (low + high) / 2, low)
        for _, y in [place((first, value))]
    )
    ends = (
        f'<text x="{LEFT}" y="{HEIGHT - 4}">{first}</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 4}" text-anchor="end">step {last:,}</text>'
    )
    latest = f"{(dotted or thin)[-1][1]:.3f}"
    kinds = [
        f"<span><i class='{kind}'></i>{name}</span>" for kind, name in LEGEND if (thin if kind == "mean" else dotted)
    ]
    return (
        f'<figure class="curve"><figcaption>{escape(title)} {"".join(kinds)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} by step, now {latest}">'
        f"{marks}{ends}{line(thin, 'each')}{line(_smoothed(thin), 'mean')}{line(dotted, 'dotted')}{dots}</svg></figure>"
    )


LEGEND = (("mean", "training, smoothed"), ("dotted", "validation"))


def _points(entries: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    found = [(entry["step"], entry[name]) for entry in entries if name and entry.get(name) is not None]
    every = 1 + len(found) // WIDTH
    return found[::every] + (found[-1:] if (len(found) - 1) % every else [])


def _smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for step, value in points:
        found.append((step, SMOOTHING * found[-1][1] + (1 - SMOOTHING) * value if found else value))
    return found


def before_and_after(run: Run) -> str:
    """What `evaluation.json` says: every system on the same held-out rows, the verdict, some answers."""
    content = run.evaluation()
    if content is None:
        return ""
    metric = content["metric"]
    rows = []
    for system in content["systems"]:
        if system["failed"]:
            rows.append((system["name"], "not possible", "", ""))
            continue
        low, high = system["interval"]
        value = system["metrics"].get(metric)
        rows.append(
            (
                system["name"],
                "" if value is None else f"{value:.3f}",
                "" if value is None else f"{low:.3f} to {high:.3f}",
                f"{system['seconds']:.0f} s",
            )
        )
    table = render.table(["on the same held-out rows", metric, "95 %", "took"], rows, [metric, "95 %", "took"])
    better = "note good" if content["beats_base"] else "note"
    verdict = f'<div class="{better}">{content["rows"]} held-out rows. {escape(content["verdict"])}</div>'
    return f"<h4>Before and after</h4>{verdict}{table}{_samples(content)}"


def _samples(content: dict[str, Any]) -> str:
    samples = content.get("samples") or []
    if not samples:
        return ""
    rows = [(s["input"][:160], s.get("base", ""), s["tuned"], s["right"]) for s in samples[:4]]
    table = render.table(["input", "best base", "tuned", "right"], rows)
    return f'<details data-fold="samples"><summary>Some of the answers</summary>{table}</details>'


def describe(recipe: Recipe) -> str:
    """A recipe in two lines, above its form."""
    source = " ".join(str(value) for value in recipe.data.source.model_dump(exclude_none=True).values())
    return (
        f'<p class="limits">{escape(recipe.summary)}<br><b>{escape(recipe.base)}</b> · {recipe.task} · '
        f"{recipe.method.name} · rows: {escape(source)}</p>"
    )
