"""What a tab collects while it is built: inputs that links restore, and menus that are filled anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from shared.checkpoints.catalog import Catalog
from shared.page.inputs import PRIVATE, Inputs
from shared.page.model_picker import ModelPicker
from shared.page.showcase import Showcase
from shared.serving.endpoint import Endpoint
from shared.serving.space import Space
from shared.transport.edge import Edge


@dataclass
class TabParts:
    """What a form, and what is no form, adds itself to."""

    edge: Edge
    space: Space
    inputs: list[Inputs] = field(default_factory=list)
    """Of the forms, and of what is not one: all that a link can restore."""

    refreshers: list[tuple[Any, Callable[[], Any]]] = field(default_factory=list)
    """Components whose choices depend on what can be used now, and what they become when a page is opened."""

    @property
    def catalog(self) -> Catalog:
        return self.edge.runtime.catalog

    def models(self, endpoint: str, label: str = "Model", unchosen: str = "") -> gr.Dropdown:
        """The model picker: checkpoints that can do the endpoint's Hub task, the default first.

        `unchosen` is what leaving the choice to the suite is called, where that is a choice.
        """
        task = self.space.endpoint(endpoint).hub_task
        assert task is not None, f"/{endpoint} states no Hub task"
        picker = ModelPicker(self.edge.runtime, task, label, unchosen)
        self.refresh(picker.menu, picker.refreshed)
        return picker.menu

    def example_buttons(self, showcase: Showcase) -> list[gr.Button]:
        """A button for each example; those that can be answered now are visible."""
        with gr.Row(elem_classes="examples"):
            gr.HTML('<span class="limits">Examples</span>', min_width=10)
            buttons = [gr.Button(e["title"], size="sm", visible=showcase.shown(e)) for e in showcase.examples]
        for button, example in zip(buttons, showcase.examples, strict=True):
            if showcase.depends(example):
                self.refresh(button, lambda e=example: gr.Button(visible=showcase.shown(e)))
        return buttons

    def refresh(self, component: Any, refreshed: Callable[[], Any]) -> None:
        """Has `refreshed` say what the component becomes whenever the page is opened."""
        self.refreshers.append((component, refreshed))

    def refresh_model(self, inputs: Inputs, after: Any) -> None:
        """Fills these inputs' model picker anew after an event, which may have fetched what it says is to fetch."""
        for picker, refreshed in self.refreshers:
            if picker is inputs.components.get("model"):
                after.then(refreshed, None, picker, queue=False, **PRIVATE)

    def take_inputs(self, endpoint: Endpoint, components: dict[str, Any], extras: Sequence[str] = ()) -> Inputs:
        """Makes these components the endpoint's inputs, which links restore."""
        taken = Inputs(endpoint, self.space.name, components, extras)
        taken.wire_link()
        self.inputs.append(taken)
        return taken
