"""The form every tab is made of: inputs on the left, the result on the right, and under it how it came about.

A Space's `ui.py` says which inputs there are and how a result looks; everything else is here, once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from shared import render, snippets
from shared.batch_ui import batch_panel
from shared.catalog import Catalog, Task
from shared.edge import Edge, plain
from shared.endpoint import Endpoint
from shared.errors import Cancelled, SuiteError
from shared.events import Done, Partial
from shared.requests import Request, bounds, validate
from shared.space import Space

Values = dict[str, Any]

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
"""Of every event of the page: not part of the API, drawn by us, and queued by us."""


@dataclass
class Look:
    """How one endpoint's results are shown. Each function escapes what it is given (see `shared.render`)."""

    result: Callable[[Any, Values], str]
    """Result and the form's values → HTML. Called for partial results too."""
    explain: Callable[[Any, Values], str] = lambda result, values: ""
    """What happened: the prompt, the scores behind the answer."""
    footer: Callable[[Any, Values], str] = lambda result, values: ""
    """What is said under a finished result."""
    text: Callable[[Any], str] | None = None
    """What Copy and Download give."""


@dataclass
class Page:
    """One tab under construction, handed to a Space's `ui.build`."""

    edge: Edge
    space: Space
    forms: list[Form] = field(default_factory=list)

    @property
    def catalog(self) -> Catalog:
        return self.edge.runtime.catalog

    def models(self, task: Task, label: str = "Model") -> gr.Dropdown:
        """The model picker: checkpoints that can do the task, the default first."""
        able = self.catalog.for_task(task)
        choices = [(f"{c.id} ({c.parameters / 1e6:,.0f} M)", c.id) for c in able]
        return gr.Dropdown(choices, value=able[0].id, label=label, filterable=False)

    def form(self, endpoint: str, inputs: Callable[[Values], dict[str, Any]], look: Look, **options: Any) -> Form:
        """Lays out and wires a form; see `Form` for the options."""
        form = Form(self, self.space.endpoint(endpoint), inputs, look, **options)
        self.forms.append(form)
        return form


def slider(model: type[Request], name: str, label: str, **changes: Any) -> gr.Slider:
    """A slider with the range, step, default and description of the request's field."""
    return gr.Slider(**{"label": label, **bounds(model, name), **changes})


class Form:
    """One endpoint's inputs, buttons, result, account, explanation and snippets."""

    def __init__(
        self,
        page: Page,
        endpoint: Endpoint,
        inputs: Callable[[Values], dict[str, Any]],
        look: Look,
        *,
        settings: Callable[[Values], dict[str, Any]] | None = None,
        extras: Sequence[str] = (),
        variants: Callable[[Values], list[tuple[str, Values]]] | None = None,
        live: bool = False,
        action: str = "Run",
    ) -> None:
        """`inputs` and `settings` make the components, given the first example's values, and return them by field.

        `extras` names those that the look needs and the endpoint does not take. `variants` turns the values into
        several calls whose results stand side by side. `live` forms answer as soon as an input changes.
        """
        self.page, self.endpoint, self.look = page, endpoint, look
        self.extras, self.variants = tuple(extras), variants
        self.examples = page.space.examples.get(endpoint.name, [])
        start: Values = self.examples[0]["inputs"] if self.examples else {}
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                self.components = inputs(start)
                if settings:
                    with gr.Accordion("Settings", open=False):
                        self.components |= settings(start)
                with gr.Row():
                    self.run_button = gr.Button(action, variant="primary", scale=2, elem_id=f"{endpoint.name}-run")
                    self.stop_button = gr.Button("Stop", interactive=False, scale=1, elem_id=f"{endpoint.name}-stop")
                buttons = self._example_buttons()
            with gr.Column(scale=6, min_width=320):
                self.result = gr.HTML(
                    render.shown('<p class="empty">The first example is being computed…</p>'),
                    elem_id=f"{endpoint.name}-result",
                    elem_classes="result-block",
                )
                self.account = gr.HTML(render.run_line(None), elem_id=f"{endpoint.name}-account")
                with gr.Accordion("What happened", open=False):
                    self.explanation = gr.HTML('<p class="empty">Run it first.</p>', elem_classes="what")
                with gr.Accordion("Call it from a program", open=False) as call_it:
                    self.snippets = gr.HTML()
        self.names = list(self.components)
        self.fields = list(self.components.values())
        self.outputs = [self.result, self.account, self.explanation, self.run_button, self.stop_button]
        self.runs: list[Any] = []
        self._wire(buttons, live)
        call_it.expand(self._snippets, self.fields, self.snippets, **PRIVATE)
        if endpoint.rows:
            batch_panel(page.edge, endpoint, self._request_values, self.fields)

    def _example_buttons(self) -> list[gr.Button]:
        with gr.Row(elem_classes="examples"):
            gr.HTML('<span class="limits">Examples</span>', min_width=10)
            return [gr.Button(example["title"], size="sm", variant="secondary") for example in self.examples]

    def _wire(self, example_buttons: Sequence[gr.Button], live: bool) -> None:
        runs = self.runs
        runs.append(self.run_button.click(self.run, self.fields, self.outputs, **PRIVATE))
        for button, example in zip(example_buttons, self.examples, strict=True):
            fill = button.click(lambda e=example: self.filled(e["inputs"]), None, self.fields, queue=False, **PRIVATE)
            runs.append(fill.then(self.run, self.fields, self.outputs, **PRIVATE))
        for component in self.fields:
            if isinstance(component, gr.Textbox) and component.lines == 1:
                runs.append(component.submit(self.run, self.fields, self.outputs, **PRIVATE))
            component.change(None, self.fields, None, js=self._link_js(), **PRIVATE)
            if live:
                runs.append(
                    component.change(self.run, self.fields, self.outputs, trigger_mode="always_last", **PRIVATE)
                )

    def wire_stop(self, first_answer: Any) -> None:
        """Makes Stop end whatever fills this form, the answer computed on opening the page included."""
        self.stop_button.click(
            lambda: ('<div class="run-line">Stopped. What was there so far is kept.</div>', *idle_buttons()),
            None,
            [self.account, self.run_button, self.stop_button],
            cancels=[*self.runs, first_answer],
            queue=False,
            **PRIVATE,
        )

    def _link_js(self) -> str:
        tab = self.page.space.name
        return f"(...values) => window.suite.link({self.endpoint.name!r}, {tab!r}, {self.names!r}, values)"

    # -- what happens on the server ------------------------------------------------------------

    def values(self, raw: Sequence[Any]) -> Values:
        return dict(zip(self.names, map(as_json, raw), strict=True))

    def _request_values(self, raw: Sequence[Any]) -> Values:
        return {name: value for name, value in self.values(raw).items() if name not in self.extras}

    def filled(self, inputs: Values) -> list[Any]:
        """An example's values for every field; those it does not name go back to their defaults."""
        fields = self.endpoint.request.model_fields
        filled = []
        for name, component in self.components.items():
            if name in inputs:
                filled.append(inputs[name])
            elif name == "model":
                filled.append(component.choices[0][1] if component.choices else "")
            elif name in fields and not fields[name].is_required():
                filled.append(plain(fields[name].default))
            else:
                filled.append(component.value if name in fields else "")
        return filled

    async def run(self, request: gr.Request, *raw: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        """Runs the endpoint, or its variants side by side, and yields what the page shows."""
        values = self.values(raw)
        calls = self.variants(values) if self.variants else [("", values)]
        results: list[tuple[str, Any]] = []
        shown, account, what = gr.skip(), render.run_line(None), gr.skip()
        try:
            yield render.shown(render.waiting(Partial(None))), account, what, *busy_buttons()
            for title, call in calls:
                inputs = {name: value for name, value in call.items() if name not in self.extras}
                async with aclosing(self.page.edge.events(self.endpoint, inputs, request)) as events:
                    async for event in events:
                        if not isinstance(event, (Partial, Done)):
                            if not results:
                                yield render.shown(render.waiting(event)), account, what, *busy_buttons()
                            continue
                        current = [*results, (title, event.result)]
                        shown = self._show(current, values)
                        if isinstance(event, Done):
                            shown += self.look.footer(event.result, values) + self._tools(event.result)
                            results = current
                            account = render.run_line(event.run)
                            what = self._explain(results, values)
                        yield shown, account, what, *busy_buttons()
            yield shown, account, what, *idle_buttons()
        except SuiteError as error:
            yield render.shown(render.problem(error)), render.run_line(None), "", *idle_buttons()
        except Cancelled:
            yield gr.skip(), gr.skip(), gr.skip(), *idle_buttons()

    def request_of_first_example(self) -> Request | None:
        """What the page asks when it is opened; its answer is computed in advance and kept."""
        if not self.examples or self.variants:
            return None
        values = self._request_values(self.filled(self.examples[0]["inputs"]))
        return validate(self.endpoint.request, values, self.page.edge.runtime.settings)

    async def first_answer(self, request: gr.Request, address: dict[str, str]) -> AsyncGenerator[tuple[Any, ...], None]:
        """On opening the page: the first example's answer, unless a link brought other inputs."""
        if (address or {}).get("form") == self.endpoint.name or not self.examples:
            yield render.shown('<p class="empty">Press the button, or choose an example.</p>'), *[gr.skip()] * 4
            return
        async with aclosing(self.run(request, *self.filled(self.examples[0]["inputs"]))) as shown:
            async for outputs in shown:
                yield outputs

    def restored(self, query: dict[str, str]) -> list[Any]:
        """Values of the fields from a link's query; what does not fit its field is left as it is."""
        fields = self.endpoint.request.model_fields
        updates = []
        for name, component in self.components.items():
            text = query.get(name)
            if text is None:
                updates.append(gr.skip())
            else:
                updates.append(from_link(text, component, fields.get(name)))
        return updates

    def _snippets(self, request: gr.Request, *raw: Any) -> str:
        url = request.request.url if request.request else None
        scheme = request.headers.get("x-forwarded-proto", url.scheme if url else "http")
        base = f"{scheme}://{request.headers.get('host', '127.0.0.1:7860')}"
        defaults = {n: plain(f.default) for n, f in self.endpoint.request.model_fields.items() if not f.is_required()}
        given = {n: v for n, v in self._request_values(raw).items() if n not in defaults or v != defaults[n]}
        return snippets.all_html(base, self.endpoint.name, given)

    def _show(self, results: Sequence[tuple[str, Any]], values: Values) -> str:
        return self._together(results, values, self.look.result)

    def _tools(self, result: Any) -> str:
        return render.tools(self.look.text(result), f"{self.endpoint.name}.txt") if self.look.text else ""

    def _explain(self, results: Sequence[tuple[str, Any]], values: Values) -> str:
        return self._together(results, values, self.look.explain)

    def _together(self, results: Sequence[tuple[str, Any]], values: Values, draw: Callable[[Any, Values], str]) -> str:
        if len(results) == 1 and not results[0][0]:
            inside = draw(results[0][1], values)
            # Left open on purpose: a growing text is then sent as additions only.
            return f'<div class="shown">{inside}'
        columns = "".join(f"<section><h3>{title}</h3>{draw(result, values)}</section>" for title, result in results)
        return f'<div class="shown"><div class="side">{columns}</div>'


def as_json(value: Any) -> Any:
    """A component's value as the API would be given it: table rows without the empty ones."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [[str(cell or "") for cell in row] for row in value if any(str(cell or "").strip() for cell in row)]
    return value


def from_link(text: str, component: Any, described: Any) -> Any:
    """A query parameter as the field's value. Links are anybody's input: what does not parse is skipped."""
    if isinstance(component, gr.Textbox):
        return text
    if isinstance(component, (gr.Dropdown, gr.Radio)):
        choices = [choice[1] if isinstance(choice, tuple) else choice for choice in component.choices]
        return text if text in choices else gr.skip()
    import json

    try:
        value = json.loads(text)
    except ValueError:
        return gr.skip()
    if isinstance(component, gr.Checkbox):
        return value if isinstance(value, bool) else gr.skip()
    if isinstance(component, gr.Slider):
        inside = isinstance(value, (int, float)) and not isinstance(value, bool)
        return value if inside and component.minimum <= value <= component.maximum else gr.skip()
    if isinstance(component, gr.Number):
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else gr.skip()
    if isinstance(component, gr.Dataframe):
        rows = isinstance(value, list) and all(
            isinstance(row, list) and len(row) == 2 and all(isinstance(cell, str) for cell in row) for row in value
        )
        return value if rows else gr.skip()
    return gr.skip()


def busy_buttons() -> tuple[Any, Any]:
    return gr.Button(interactive=False), gr.Button(interactive=True)


def idle_buttons() -> tuple[Any, Any]:
    return gr.Button(interactive=True), gr.Button(interactive=False)
