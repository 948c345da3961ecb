"""The form every tab is made of: inputs on the left, the result on the right, and under it how it came about.

A Space's `ui.py` says which inputs there are and how a result looks; everything else is here, once.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from shared.checkpoints.catalog import Catalog
from shared.errors import SuiteError
from shared.events import Done, Event, Partial, RunInfo, Running, Waiting
from shared.page import comparison, render
from shared.page.batch_panel import batch_panel
from shared.page.comparison import COMPARE, Comparison
from shared.page.driver import Driver, Presenter, Updates, Visitor, consent_button
from shared.page.inputs import PRIVATE, Inputs, Values
from shared.page.model_picker import ModelPicker
from shared.page.showcase import Able, Showcase
from shared.page.stop import NOTHING_YET, STOPPED, Stop
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
                    run_button = gr.Button(action, variant="primary", scale=2, elem_id=f"{endpoint.name}-run")
                    stop = Stop(endpoint.name, scale=1)
                buttons = page.example_buttons(showcase)
            with gr.Column(scale=6, min_width=320):
                self.result = gr.HTML(
                    render.shown('<p class="empty">The first example is being computed…</p>'),
                    elem_id=f"{endpoint.name}-result",
                    elem_classes="result-block",
                )
                consent = consent_button(endpoint.name)
                self.account = gr.HTML(render.run_line(None), elem_id=f"{endpoint.name}-account")
                with gr.Accordion("What happened", open=False):
                    self.explanation = gr.HTML('<p class="empty">Run it first.</p>', elem_classes="what")
                with gr.Accordion("Call it from a program", open=False) as call_it:
                    self.snippets = gr.HTML()
        self.inputs = page.take_inputs(endpoint, components, extras)
        if self.comparison:
            self.comparison.wire(components)
        self.driver = Driver(
            page.edge,
            functools.partial(FormPresenter, self),
            self.inputs.fields,
            [self.result, self.account, self.explanation],
            stop,
            run_button=run_button,
            consent=consent,
        )
        self._wire(buttons, live)
        run_button.click(self.inputs.snippets, self.inputs.fields, self.snippets, **PRIVATE)
        call_it.expand(self.inputs.snippets, self.inputs.fields, self.snippets, **PRIVATE)
        if endpoint.rows:
            agreed = batch_panel(page.edge, endpoint, self.inputs.request_values, self.inputs.fields)
            page.refresh_model(self.inputs, after=agreed)

    def _wire(self, example_buttons: Sequence[gr.Button], live: bool) -> None:
        fields, driver = self.inputs.fields, self.driver
        self.page.refresh_model(self.inputs, after=driver.agreed)
        for button, example in zip(example_buttons, self.examples, strict=True):
            fill = button.click(lambda e=example: self.inputs.filled(e["inputs"]), None, fields, queue=False, **PRIVATE)
            driver.on(fill.then)
        for component in fields:
            if isinstance(component, gr.Textbox) and component.lines == 1:
                driver.on(component.submit)
        if live:
            changes = [component.change for component in fields]
            gr.on(changes, driver.run, fields, driver.outputs, trigger_mode="always_last", **PRIVATE)

    # -- what happens on the server ------------------------------------------------------------

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

    async def first_answer(self, request: gr.Request, address: dict[str, str]) -> AsyncGenerator[Updates, None]:
        """On opening the page: the first example's answer, unless a link brought other inputs."""
        linked = isinstance(address, dict) and address.get("form") == self.endpoint.name
        if linked or not self.examples:
            yield {self.result: render.shown('<p class="empty">Press the button, or choose an example.</p>')}
            return
        async with aclosing(self.driver.run(request, *self.inputs.filled(self.examples[0]["inputs"]))) as shown:
            async for updates in shown:
                yield updates


@dataclass(frozen=True)
class Answer:
    """One of the answers that a form shows; `run` is there once it is finished."""

    title: str
    result: Any
    run: RunInfo | None = None


class FormPresenter(Presenter):
    """One run of a form: the endpoint's answer, or the answers of its variants side by side."""

    def __init__(self, form: Form, *raw: Any) -> None:
        self.form, self.values = form, form.inputs.values(raw)
        self.answers: list[Answer] = []
        """The finished ones."""
        self.shown: Updates = {}
        """All that is shown of results. Sent whole each time: Gradio sends the difference to the last update."""

    def requests(self, visitor: Visitor) -> Iterator[AsyncGenerator[Event, None]]:
        for title, call in self.form.calls(self.values):
            self.title = title
            yield visitor.events(self.form.endpoint, call)

    def begin(self) -> Updates:
        return {**self.waiting(Running()), self.form.account: render.run_line(None)}

    def waiting(self, event: Waiting) -> Updates:
        return self.shown if self.answers else {self.form.result: render.shown(render.waiting(event))}

    async def result(self, event: Partial[Any] | Done[Any]) -> Updates:
        form, look = self.form, self.form.look
        answer = Answer(self.title, event.result, event.run if isinstance(event, Done) else None)
        current = [*self.answers, answer]
        drawn = self._together(current, look.result)
        if isinstance(event, Done):
            drawn += await asyncio.to_thread(look.footer, event.result, self.values)
            drawn += render.tools(look.text(event.result), f"{form.endpoint.name}.txt") if look.text else ""
            self.answers = current
            self.shown |= {form.account: self._account(), form.explanation: self._together(current, look.explain)}
        self.shown = {**self.shown, form.result: drawn}
        return self.shown

    def finished(self) -> Updates:
        return self.shown

    def message(self, html: str) -> Updates:
        form = self.form
        return {form.result: render.shown(html), form.account: render.run_line(None), form.explanation: ""}

    def stopped(self) -> Updates:
        if self.shown:
            return {self.form.account: STOPPED}
        return {self.form.result: NOTHING_YET, self.form.account: render.run_line(None)}

    def _account(self) -> str:
        runs = [answer.run for answer in self.answers if answer.run]
        return comparison.together(runs) if comparison.compares(self.values) else render.run_line(runs[-1])

    def _together(self, answers: Sequence[Answer], draw: Callable[[Any, Values], str]) -> str:
        """One result, or several side by side. Left open on purpose: a growing text is then sent as additions only."""
        if len(answers) == 1 and not answers[0].title:
            return f'<div class="shown">{draw(answers[0].result, self.values)}'
        if comparison.compares(self.values):
            accounts = draw == self.form.look.result
            drawn = [(a.title, draw(a.result, self.values), a.run if accounts else None) for a in answers]
            return f'<div class="shown">{comparison.columns(drawn)}</section></div>'
        columns = "".join(f"<section><h3>{a.title}</h3>{draw(a.result, self.values)}</section>" for a in answers)
        return f'<div class="shown"><div class="side">{columns}</div>'
