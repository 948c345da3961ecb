"""The model picker: checkpoints that can do a task, adapters trained for it, and what choosing one would fetch."""

from __future__ import annotations

from typing import Any

import gradio as gr

from shared.checkpoints.adapter_folder import Adapter
from shared.checkpoints.catalog import Checkpoint, Task
from shared.serving.runtime import Runtime


class ModelPicker:
    """A menu of the checkpoints for a task. Those of the Hub come and go, so it is filled whenever a page is opened."""

    def __init__(self, runtime: Runtime, task: Task, label: str, unchosen: str) -> None:
        self._runtime, self._unchosen = runtime, unchosen
        self._task: Task = task
        choices = self.choices()
        self.menu = gr.Dropdown(choices, value=choices[0][1], label=label, filterable=False)

    def choices(self) -> list[tuple[str, str]]:
        """What is shown and the checkpoint's id; "" leaves the choice to the suite."""
        found = [(self._named(c), c.id) for c in self._runtime.catalog.for_task(self._task)]
        adapters = self._runtime.adapters
        found += [(self._adapted(a), f"{adapters.usual_base(a).id}+{a.name}") for a in adapters.for_task(self._task)]
        if self._unchosen or not found:
            found.insert(0, (self._unchosen or "none on this machine", ""))
        return found

    def _named(self, checkpoint: Checkpoint) -> str:
        size = f"{checkpoint.parameters / 1e6:,.0f} M"
        if nbytes := self._runtime.bytes_to_fetch(checkpoint):
            size += f", {nbytes / 1e6:,.0f} MB to fetch"
        return f"{checkpoint.id} ({size})"

    def _adapted(self, adapter: Adapter) -> str:
        named = f"{adapter.title} (on {self._runtime.adapters.usual_base(adapter).id})"
        if adapter.repository is None or self._runtime.files.is_on_disk(adapter.repository):
            return named
        return f"{named[:-1]}, {adapter.size} to fetch)"

    def refreshed(self) -> Any:
        """The menu with what there is to choose from now."""
        choices = self.choices()
        if self.menu.value or self._unchosen:
            return gr.Dropdown(choices=choices)
        return gr.Dropdown(choices=choices, value=choices[0][1])
