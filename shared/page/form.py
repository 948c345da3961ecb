"""A form of one endpoint: inputs on the left; on the right the result, and under it how it was computed.

A Space's `ui.py` gives the inputs and a `ResultView`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from shared.errors import SuiteError
from shared.events import Done, Event, Partial, RunInfo, Running, Waiting
from shared.page import comparison, render
from shared.page.batch_panel import batch_panel
from shared.page.comparison import COMPARE, Comparison
from shared.page.driver import Driver, Presenter, Updates, Visitor, consent_button
from shared.page.inputs import PRIVATE, Values
from shared.page.showcase import Able, Showcase
from shared.page.stop import NOTHING_YET, STOPPED, Stop
from shared.page.tab_parts import TabParts
from shared.serving.endpoint import Endpoint
from shared.serving.requests import Request, validate


@dataclass
class ResultView:
    """How one endpoint's results are shown. Each function escapes what it is given (see `shared.page.render`)."""

    result: Callable[[Any, Values], str]
    """Result and the form's values → HTML. Called for partial results too."""
    explain: Callable[[Any, Values], str] = lambda result, values: ""
    """What happened: the prompt, the scores behind the answer."""
    footer: Callable[[Any, Values], str] = lambda result, values: ""
    """HTML under a finished result. Runs in a thread, since it may compute."""
    text: Callable[[Any], str] | None = None
    """What Copy and Download give."""


class Form:
    """One endpoint's inputs, buttons, result, account, explanation and snippets."""

    def __init__(
        self,
        tab: TabParts,
        endpoint: Endpoint,
        inputs: Callable[[Values], dict[str, Any]],
        view: ResultView,
        *,
        settings: Callable[[Values], dict[str, Any]] | None = None,
        extras: Sequence[str] = (),
        variants: Callable[[Values], list[tuple[str, Values]]] | None = None,
        able: Able | None = None,
        live: bool = False,
        action: str = "Run",
    ) -> None:
        """`inputs` and `settings` make the components, given the first example's values, and return them by field.

        `extras` names those that the view needs and the endpoint does not take. `variants` turns the values into
        several calls whose results stand side by side. `able` says which checkpoints can answer an example's inputs
        (see `Showcase`). `live` forms answer as soon as an input changes.
        """
        self.tab, self.endpoint, self.view, self.variants = tab, endpoint, view, variants
        showcase = Showcase(tab.edge.runtime, tab.space.examples.get(endpoint.name, []), able)
        self.examples = showcase.examples
        start: Values = self.examples[0]["inputs"] if self.examples else {}
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                components = inputs(start)
                if settings:
                    with gr.Accordion("Settings", open=False):
                        components |= settings(start)
                # Not among the settings, which may be folded away while an adapter is chosen.
                self.comparison = Comparison(tab.edge.runtime, endpoint.name) if "model" in components else None
                if self.comparison:
                    components[COMPARE] = self.comparison.box
                    extras = (*extras, COMPARE)
                with gr.Row():
                    run_button = gr.Button(action, variant="primary", scale=2, elem_id=f"{endpoint.name}-run")
                    stop = Stop(endpoint.name, scale=1)
                buttons = tab.example_buttons(showcase)
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
        self.inputs = tab.take_inputs(endpoint, components, extras)
        if self.comparison:
            self.comparison.wire(components)
        self.driver = Driver(
            tab.edge,
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
            agreed = batch_panel(tab.edge, endpoint, self.inputs.request_values, self.inputs.fields)
            tab.refresh_model(self.inputs, after=agreed)

    def _wire(self, example_buttons: Sequence[gr.Button], live: bool) -> None:
        fields, driver = self.inputs.fields, self.driver
        self.tab.refresh_model(self.inputs, after=driver.agreed)
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
        """The requests that opening the page makes; their answers are computed in advance and stored."""
        if not self.examples:
            return []
        values = self.inputs.values(self.inputs.filled(self.examples[0]["inputs"]))
        settings = self.tab.edge.runtime.settings
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
        form, view = self.form, self.form.view
        answer = Answer(self.title, event.result, event.run if isinstance(event, Done) else None)
        current = [*self.answers, answer]
        drawn = self._together(current, view.result)
        if isinstance(event, Done):
            drawn += await asyncio.to_thread(view.footer, event.result, self.values)
            drawn += render.tools(view.text(event.result), f"{form.endpoint.name}.txt") if view.text else ""
            self.answers = current
            self.shown |= {form.account: self._account(), form.explanation: self._together(current, view.explain)}
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
            accounts = draw == self.form.view.result
            drawn = [(a.title, draw(a.result, self.values), a.run if accounts else None) for a in answers]
            return f'<div class="shown">{comparison.columns(drawn)}</section></div>'
        columns = "".join(f"<section><h3>{a.title}</h3>{draw(a.result, self.values)}</section>" for a in answers)
        return f'<div class="shown"><div class="side">{columns}</div>'
