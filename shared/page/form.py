"""The form every tab is made of: inputs on the left, the result on the right, and under it how it came about.

A Space's `ui.py` says which inputs there are and how a result looks; everything else is here, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from shared.checkpoints.catalog import Catalog
from shared.errors import Cancelled, NeedsDownload, SuiteError
from shared.events import Done, Partial, RunInfo
from shared.page import comparison, render
from shared.page.batch_panel import batch_panel
from shared.page.comparison import COMPARE, Comparison
from shared.page.consent import consent_button, no_question, offer
from shared.page.inputs import PRIVATE, Inputs, Values
from shared.page.model_picker import ModelPicker
from shared.page.showcase import Able, Showcase
from shared.page.stop import NOTHING_YET, STOPPED, Stop, busy_buttons, idle_buttons
from shared.serving.endpoint import Endpoint
from shared.serving.requests import Request, bounds, validate
from shared.serving.space import Space
from shared.transport.edge import Edge


@dataclass
class Look:
    """How one endpoint's results are shown. Each function escapes what it is given (see `shared.page.render`)."""

    result: Callable[[Any, Values], str]
    """Result and the form's values → HTML. Called for partial results too."""
    explain: Callable[[Any, Values], str] = lambda result, values: ""
    """What happened: the prompt, the scores behind the answer."""
    footer: Callable[[Any, Values], str] = lambda result, values: ""
    """What is said under a finished result. Runs in a thread, since it may compute."""
    text: Callable[[Any], str] | None = None
    """What Copy and Download give."""


@dataclass
class Page:
    """One tab under construction, handed to a Space's `ui.build`."""

    edge: Edge
    space: Space
    forms: list[Form] = field(default_factory=list)
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

    def form(self, endpoint: str, inputs: Callable[[Values], dict[str, Any]], look: Look, **options: Any) -> Form:
        """Lays out and wires a form; see `Form` for the options."""
        form = Form(self, self.space.endpoint(endpoint), inputs, look, **options)
        self.forms.append(form)
        return form

    def take_inputs(self, endpoint: Endpoint, components: dict[str, Any], extras: Sequence[str] = ()) -> Inputs:
        """Makes these components the endpoint's inputs, which links restore."""
        taken = Inputs(endpoint, self.space.name, components, extras)
        taken.wire_link()
        self.inputs.append(taken)
        return taken


@dataclass(frozen=True)
class Answer:
    """One of the answers that a form shows; `run` is there once it is finished."""

    title: str
    result: Any
    run: RunInfo | None = None


def zero_one_few(values: Values, *, always: bool = False) -> list[tuple[str, Values]]:
    """The same call with no example, with the first, and with all, so that their effect is seen.

    Without examples it is one call, under the title of zero-shot only where `always` says so.
    """
    examples = values["examples"] or []
    if not examples and not always:
        return [("", {**values, "examples": []})]
    calls = [("Zero-shot", {**values, "examples": []})]
    if examples:
        calls.append(("One-shot", {**values, "examples": examples[:1]}))
    if len(examples) > 1:
        calls.append((f"Few-shot ({len(examples)})", {**values, "examples": examples}))
    return calls


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
        able: Able | None = None,
        live: bool = False,
        action: str = "Run",
    ) -> None:
        """`inputs` and `settings` make the components, given the first example's values, and return them by field.

        `extras` names those that the look needs and the endpoint does not take. `variants` turns the values into
        several calls whose results stand side by side. `able` says which checkpoints can answer an example's inputs
        (see `Showcase`). `live` forms answer as soon as an input changes.
        """
        self.page, self.endpoint, self.look, self.variants = page, endpoint, look, variants
        showcase = Showcase(page.edge.runtime, page.space.examples.get(endpoint.name, []), able)
        self.examples = showcase.examples
        start: Values = self.examples[0]["inputs"] if self.examples else {}
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                components = inputs(start)
                if settings:
                    with gr.Accordion("Settings", open=False):
                        components |= settings(start)
                # Not among the settings, which may be folded away while an adapter is chosen.
                self.comparison = Comparison(page.edge.runtime, endpoint.name) if "model" in components else None
                if self.comparison:
                    components[COMPARE] = self.comparison.box
                    extras = (*extras, COMPARE)
                with gr.Row():
                    self.run_button = gr.Button(action, variant="primary", scale=2, elem_id=f"{endpoint.name}-run")
                    self.stop = Stop(endpoint.name, scale=1)
                buttons = page.example_buttons(showcase)
            with gr.Column(scale=6, min_width=320):
                self.result = gr.HTML(
                    render.shown('<p class="empty">The first example is being computed…</p>'),
                    elem_id=f"{endpoint.name}-result",
                    elem_classes="result-block",
                )
                self.consent = consent_button(endpoint.name)
                self.account = gr.HTML(render.run_line(None), elem_id=f"{endpoint.name}-account")
                with gr.Accordion("What happened", open=False):
                    self.explanation = gr.HTML('<p class="empty">Run it first.</p>', elem_classes="what")
                with gr.Accordion("Call it from a program", open=False) as call_it:
                    self.snippets = gr.HTML()
        self.inputs = page.take_inputs(endpoint, components, extras)
        if self.comparison:
            self.comparison.wire(components)
        self.outputs = [
            self.result,
            self.account,
            self.explanation,
            self.run_button,
            self.stop.button,
            self.consent,
        ]
        self._wire(buttons, live)
        call_it.expand(self.inputs.snippets, self.inputs.fields, self.snippets, **PRIVATE)
        if endpoint.rows:
            agreed = batch_panel(page.edge, endpoint, self.inputs.request_values, self.inputs.fields)
            page.refresh_model(self.inputs, after=agreed)

    def _wire(self, example_buttons: Sequence[gr.Button], live: bool) -> None:
        fields = self.inputs.fields
        self.stop.wire(self.run_button)
        self.run_button.click(self.run, fields, self.outputs, **PRIVATE)
        self.run_button.click(self.inputs.snippets, fields, self.snippets, **PRIVATE)
        agreed = self.consent.click(self.run_agreed, fields, self.outputs, **PRIVATE)
        self.page.refresh_model(self.inputs, after=agreed)
        for button, example in zip(example_buttons, self.examples, strict=True):
            fill = button.click(lambda e=example: self.inputs.filled(e["inputs"]), None, fields, queue=False, **PRIVATE)
            fill.then(self.run, fields, self.outputs, **PRIVATE)
        for component in fields:
            if isinstance(component, gr.Textbox) and component.lines == 1:
                component.submit(self.run, fields, self.outputs, **PRIVATE)
        if live:
            changes = [component.change for component in fields]
            gr.on(changes, self.run, fields, self.outputs, trigger_mode="always_last", **PRIVATE)

    # -- what happens on the server ------------------------------------------------------------

    async def run(self, request: gr.Request, *raw: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        """Runs the endpoint, or its variants side by side, and yields what the page shows."""
        async with aclosing(self._run(request, raw, may_download=False)) as shown:
            async for outputs in shown:
                yield outputs

    async def run_agreed(self, request: gr.Request, *raw: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        """The same, after the visitor agreed to fetch what it needs."""
        async with aclosing(self._run(request, raw, may_download=True)) as shown:
            async for outputs in shown:
                yield outputs

    async def _run(
        self, request: gr.Request, raw: Sequence[Any], *, may_download: bool
    ) -> AsyncGenerator[tuple[Any, ...], None]:
        values = self.inputs.values(raw)
        results: list[Answer] = []
        # What has not changed is not sent again.
        shown, account, what = gr.skip(), gr.skip(), gr.skip()
        with self.stop.run(request) as run:
            try:
                first = render.shown(render.waiting(Partial(None)))
                yield first, render.run_line(None), what, *busy_buttons(), no_question()
                for title, call in self.calls(values):
                    asked = self.page.edge.events(self.endpoint, call, request, may_download=may_download)
                    async with aclosing(asked) as events:
                        async for event in events:
                            run.check()
                            if not isinstance(event, (Partial, Done)):
                                if not results:
                                    yield render.shown(render.waiting(event)), account, what, *busy_buttons(), gr.skip()
                                continue
                            answer = Answer(title, event.result, event.run if isinstance(event, Done) else None)
                            current = [*results, answer]
                            shown = self._together(current, values, self.look.result)
                            if isinstance(event, Done):
                                shown += await asyncio.to_thread(self.look.footer, event.result, values)
                                shown += self._tools(event.result)
                                results = current
                                account = self._account(results, values)
                                what = self._together(results, values, self.look.explain)
                            yield shown, account, what, *busy_buttons(), gr.skip()
                yield shown, account, what, *idle_buttons(), no_question()
            except NeedsDownload as needed:
                asking = render.shown(render.question(needed))
                yield asking, render.run_line(None), "", *idle_buttons(), offer(needed)
            except SuiteError as error:
                yield render.shown(render.problem(error)), render.run_line(None), "", *idle_buttons(), no_question()
            except Cancelled:
                nothing = isinstance(shown, dict)  # nothing but a word that something is coming
                kept, said = (NOTHING_YET, render.run_line(None)) if nothing else (gr.skip(), STOPPED)
                yield kept, said, gr.skip(), *idle_buttons(), no_question()

    def calls(self, values: Values) -> list[tuple[str, Values]]:
        """The endpoint's inputs, once or in variants with a title each."""
        variants = self.variants(values) if self.variants else [("", values)]
        if self.comparison:
            variants = self.comparison.calls(variants, values)
        return [(title, self.inputs.without_extras(call)) for title, call in variants]

    def requests_of_first_example(self) -> list[Request]:
        """What the page asks when it is opened; the answers are computed in advance and kept."""
        if not self.examples:
            return []
        values = self.inputs.values(self.inputs.filled(self.examples[0]["inputs"]))
        settings = self.page.edge.runtime.settings
        try:
            return [validate(self.endpoint.request, call, settings) for _, call in self.calls(values)]
        except SuiteError:
            return []  # the limits of this deployment are too low for the example; the page will say so

    async def first_answer(self, request: gr.Request, address: dict[str, str]) -> AsyncGenerator[tuple[Any, ...], None]:
        """On opening the page: the first example's answer, unless a link brought other inputs."""
        linked = isinstance(address, dict) and address.get("form") == self.endpoint.name
        if linked or not self.examples:
            yield render.shown('<p class="empty">Press the button, or choose an example.</p>'), *[gr.skip()] * 5
            return
        async with aclosing(self.run(request, *self.inputs.filled(self.examples[0]["inputs"]))) as shown:
            async for outputs in shown:
                yield outputs

    def _tools(self, result: Any) -> str:
        return render.tools(self.look.text(result), f"{self.endpoint.name}.txt") if self.look.text else ""

    def _account(self, answers: Sequence[Answer], values: Values) -> str:
        runs = [answer.run for answer in answers if answer.run]
        return comparison.together(runs) if comparison.compares(values) else render.run_line(runs[-1])

    def _together(self, answers: Sequence[Answer], values: Values, draw: Callable[[Any, Values], str]) -> str:
        """One result, or several side by side. Left open on purpose: a growing text is then sent as additions only."""
        if len(answers) == 1 and not answers[0].title:
            return f'<div class="shown">{draw(answers[0].result, values)}'
        if comparison.compares(values):
            accounts = draw == self.look.result
            drawn = [(a.title, draw(a.result, values), a.run if accounts else None) for a in answers]
            return f'<div class="shown">{comparison.columns(drawn)}</section></div>'
        columns = "".join(f"<section><h3>{a.title}</h3>{draw(a.result, values)}</section>" for a in answers)
        return f'<div class="shown"><div class="side">{columns}</div>'
