"""The loss over the steps of a run, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TRAINING, VALIDATION = "#3b6ea5", "#d98c1f"
"""Colours that people with red-green blindness can tell apart."""


def draw(entries: list[dict[str, Any]], path: Path, title: str) -> None:
    """Writes a PNG. `entries` are those of `log.jsonl`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    losses = [(e["step"], e["loss"]) for e in entries if e.get("loss") is not None]
    validated = [(e["step"], e["validation_loss"]) for e in entries if e.get("validation_loss") is not None]
    if losses:
        axes.plot(*zip(*losses, strict=True), color=TRAINING, linewidth=0.8, alpha=0.5, label="training, each step")
        axes.plot(*zip(*_smoothed(losses), strict=True), color=TRAINING, linewidth=2, label="training, smoothed")
    if validated:
        axes.plot(*zip(*validated, strict=True), "o-", color=VALIDATION, linewidth=2, label="validation")
    axes.set(xlabel="step", ylabel="loss", title=title)
    axes.grid(alpha=0.25)
    if losses or validated:
        axes.legend(frameon=False)
    figure.savefig(path)


def _smoothed(points: list[tuple[int, float]], weight: float = 0.9) -> list[tuple[int, float]]:
    found, mean = [], points[0][1]
    for step, value in points:
        mean = weight * mean + (1 - weight) * value
        found.append((step, mean))
    return found
