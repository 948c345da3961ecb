"""The input fields of one endpoint on the page: their values, links that restore them, and calls that use them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from shared.page import snippets
from shared.serving.endpoint import Endpoint
from shared.transport.gradio.gradio_api import plain
from shared.transport.uploads import uploaded_fields

Values = dict[str, Any]

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
"""Of every event of the page: not part of the API, drawn by us, and queued by us."""


class Inputs:
    """Components by field name, in the order in which events get them.

    `extras` names those that the page needs and the endpoint does not take.
    """

    def __init__(self, endpoint: Endpoint, tab: str, components: dict[str, Any], extras: Sequence[str] = ()) -> None:
        self.endpoint = endpoint
        self.components = components
        self.names = list(components)
        self.fields = list(components.values())
        self._tab = tab
        self._extras = tuple(extras)

    # -- values --------------------------------------------------------------------------------

    def values(self, raw: Sequence[Any]) -> Values:
        return dict(zip(self.names, map(as_json, raw), strict=True))

    def request_values(self, raw: Sequence[Any]) -> Values:
        return self.without_extras(self.values(raw))

    def without_extras(self, values: Values) -> Values:
        return {name: value for name, value in values.items() if name not in self._extras}

    def filled(self, inputs: Values) -> list[Any]:
        """An example's values for every field; those it does not name go back to their defaults."""
        described = self.endpoint.request.model_fields
        filled = []
        for name, component in self.components.items():
            if name in inputs:
                filled.append(inputs[name])
            elif name == "model":
                filled.append(component.choices[0][1] if component.choices else "")
            elif name in described and not described[name].is_required():
                filled.append(plain(described[name].default))
            else:
                nothing = False if isinstance(component, gr.Checkbox) else ""
                filled.append(component.value if name in described else nothing)
        return filled

    # -- links ---------------------------------------------------------------------------------

    def wire_link(self) -> None:
        """Keeps the address in step with the fields, so that copying it shares them."""
        js = f"(...values) => window.suite.link({self.endpoint.name!r}, {self._tab!r}, {self.names!r}, values)"
        for component in self.fields:
            component.change(None, self.fields, None, js=js, **PRIVATE)

    def restored(self, query: dict[str, str]) -> list[Any]:
        """Values of the fields from a link's query; what does not fit its field is left as it is."""
        return [
            from_link(query[name], component) if name in query else gr.skip()
            for name, component in self.components.items()
        ]

    # -- calls ---------------------------------------------------------------------------------

    def snippets(self, request: gr.Request, *raw: Any) -> str:
        """How to call the endpoint with these inputs, defaults left out."""
        url = request.request.url if request.request else None
        scheme = request.headers.get("x-forwarded-proto", url.scheme if url else "http")
        base = f"{scheme}://{request.headers.get('host', '127.0.0.1:7860')}"
        described = self.endpoint.request.model_fields
        defaults = {name: plain(field.default) for name, field in described.items() if not field.is_required()}
        given = {n: v for n, v in self.request_values(raw).items() if n not in defaults or v != defaults[n]}
        for name in uploaded_fields(self.endpoint.request) & given.keys():
            given[name] = snippets.File(Path(str(given[name] or "recording.wav")).name)
        return snippets.all_html(base, self.endpoint.name, given)


def as_json(value: Any) -> Any:
    """A component's value as the API would be given it: table rows without the empty ones."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [[str(cell or "") for cell in row] for row in value if any(str(cell or "").strip() for cell in row)]
    return value


def from_link(text: str, component: Any) -> Any:
    """A query parameter as the field's value. Links are anybody's input: what does not fit is skipped."""
    if isinstance(component, gr.Textbox):
        return text
    if isinstance(component, (gr.Dropdown, gr.Radio)):
        choices = [choice[1] if isinstance(choice, tuple) else choice for choice in component.choices]
        open_ended = isinstance(component, gr.Dropdown) and component.allow_custom_value
        return text if text in choices or open_ended else gr.skip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return gr.skip()
    if fits(value, component):
        return value
    return gr.skip()


def fits(value: Any, component: Any) -> bool:
    """Whether a JSON value can stand in the component."""
    if isinstance(component, gr.Checkbox):
        return isinstance(value, bool)
    if isinstance(component, (gr.Slider, gr.Number)):
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            return False
        low, high = component.minimum, component.maximum
        return (low is None or value >= low) and (high is None or value <= high)
    if isinstance(component, gr.Dataframe):
        return isinstance(value, list) and all(
            isinstance(row, list) and len(row) == 2 and all(isinstance(cell, str) for cell in row) for row in value
        )
    return False
