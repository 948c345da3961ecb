"""Base and adapted answers to one input, side by side: what every form with a model picker offers for an adapter."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from shared.checkpoints.adapter_folder import Adapter
from shared.events import RunInfo
from shared.page import render
from shared.page.inputs import PRIVATE, Values
from shared.serving.runtime import Runtime

COMPARE = "compare"
"""Name of the box among a form's components; the endpoint does not take it."""


class Comparison:
    """A note on the chosen adapter and the box "Compare with the base", both hidden while none is chosen."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime = runtime
        self.note = gr.HTML("", visible=False, elem_id=f"{name}-adapter")
        self.box = gr.Checkbox(False, label="Compare with the base", visible=False, elem_id=f"{name}-compare")

    def wire(self, components: dict[str, Any]) -> None:
        """Has both follow the model picker, and fills in the labels of a classifier that has its own."""
        picker, labels = components["model"], components.get("candidate_labels")
        picker.change(self._about, picker, [self.note, self.box], queue=False, **PRIVATE)
        if labels is not None:
            picker.input(self._labels, picker, labels, queue=False, **PRIVATE)

    def _about(self, model: str | None) -> tuple[Any, Any]:
        adapter = self._adapter(model)
        said = about(adapter) if adapter else ""
        return gr.HTML(said, visible=bool(adapter)), gr.Checkbox(visible=bool(adapter))

    def _labels(self, model: str | None) -> Any:
        adapter = self._adapter(model)
        return ", ".join(adapter.labels) if adapter and adapter.labels else gr.skip()

    def _adapter(self, model: str | None) -> Adapter | None:
        name = (model or "").partition("+")[2]
        return next((adapter for adapter in self._runtime.adapters if name and adapter.name == name), None)

    def calls(self, calls: list[tuple[str, Values]], values: Values) -> list[tuple[str, Values]]:
        """Each call once with the base and once with the adapter if the box is ticked; else the calls unchanged."""
        if not compares(values):
            return calls
        base = values["model"].partition("+")[0]
        adapter = self._adapter(values["model"])
        names = ("Base", adapter.title if adapter else "Adapter")
        models = (base, values["model"])
        return [
            (f"{title} · {name}" if title else name, {**call, "model": model})
            for title, call in calls
            for name, model in zip(names, models, strict=True)
        ]


def compares(values: Values) -> bool:
    """Whether both the base and the adapter answer."""
    return bool(values.get(COMPARE)) and "+" in (values.get("model") or "")


def about(adapter: Adapter) -> str:
    """An adapter's origin, labels and training prompt, for whoever chooses it."""
    parts = [f"<b>{escape(adapter.title)}</b>: {escape(adapter.described)}, {adapter.size}"]
    if adapter.metric:
        parts.append(escape(adapter.metric))
    if adapter.labels:
        more = f" and {len(adapter.labels) - render.MOST_BARS} more" if len(adapter.labels) > render.MOST_BARS else ""
        parts.append(f"labels: {escape(', '.join(adapter.labels[: render.MOST_BARS]))}{more}")
    if adapter.instruction:
        parts.append(f"trained with the prompt <code>{escape(adapter.instruction[:300])}</code>")
    if adapter.example:
        parts.append(f"for example <code>{escape(adapter.example[:200])}</code>")
    return f'<p class="limits">{" · ".join(parts)}</p>'


def columns(results: list[tuple[str, str, RunInfo | None]]) -> str:
    """Title, drawn result and account of each, in two columns; one under the other on a phone. Left open at the end."""
    drawn = [
        f"<section><h3>{escape(title)}</h3>{result}{render.run_line(run) if run else ''}"
        for title, result, run in results
    ]
    return '<div class="side two">' + "</section>".join(drawn)


def together(runs: list[RunInfo]) -> str:
    """One line on what all answers took; each has its own account under it."""
    each = " and ".join(f"{run.seconds_running:.2f} s" for run in runs)
    return f'<div class="run-line">{len(runs)} answers: {each} computing</div>'
