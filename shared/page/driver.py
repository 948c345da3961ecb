"""One driver for all that runs on the page: progress, results, Stop, the question before a download, and errors.

A form, the chat, a batch, the Models tab and an estimate differ in what they request and in how it looks. Each says so
in a `Presenter`; a `Driver` does the rest.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from shared.errors import Cancelled, NeedsDownload, SuiteError
from shared.events import Done, Event, Partial, Running, Waiting
from shared.page import render
from shared.page.inputs import PRIVATE
from shared.page.stop import Stop
from shared.serving.endpoint import Endpoint
from shared.transport.edge import Edge

Updates = dict[Any, Any]
"""Components and their new values. Components without an entry stay as they are."""


@dataclass(frozen=True)
class Visitor:
    """Who pressed the button, and whether that visitor agreed to a download (None: the task decides)."""

    edge: Edge
    request: gr.Request
    may_download: bool | None
    files: ExitStack
    """Closed when the run is over and everything was sent."""

    def events(self, endpoint: Endpoint, values: dict[str, Any]) -> AsyncGenerator[Event, None]:
        """The endpoint's events for this visitor; see `Edge.events`."""
        return self.edge.events(endpoint, values, self.request, may_download=self.may_download)


class Presenter(ABC):
    """What one press of a button requests, and how its events change the page. Made anew for each press."""

    @abstractmethod
    def requests(self, visitor: Visitor) -> Iterable[AsyncGenerator[Event, None]]:
        """The event streams to show, one after another. May raise `SuiteError`."""

    @abstractmethod
    def waiting(self, event: Waiting) -> Updates:
        """Progress without a result."""

    @abstractmethod
    async def result(self, event: Partial[Any] | Done[Any]) -> Updates:
        """A result, partial or final."""

    @abstractmethod
    def message(self, html: str) -> Updates:
        """A question or an error in place of the result. The inputs stay."""

    @abstractmethod
    def stopped(self) -> Updates:
        """After Stop."""

    def begin(self) -> Updates:
        return self.waiting(Running())

    def finished(self) -> Updates:
        """After the last stream."""
        return {}

    def problem(self, error: SuiteError) -> Updates:
        return self.message(render.problem(error))


class Driver:
    """Runs presenters and fills `outputs`. Wires the Run button and the consent button, where there are any."""

    def __init__(
        self,
        edge: Edge,
        presenter: Callable[..., Presenter],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        stop: Stop,
        *,
        run_button: gr.Button | None = None,
        consent: gr.Button | None = None,
    ) -> None:
        """`presenter` gets the values of `inputs`. A run disables `run_button`. Without `consent`, nothing is asked."""
        self.presenter, self.inputs = presenter, list(inputs)
        self._edge, self._stop, self._run_button, self._consent = edge, stop, run_button, consent
        self.outputs = [*outputs, stop.button, *(b for b in (run_button, consent) if b is not None)]
        self.run = self._event(None if consent is None else False)
        if run_button is not None:
            stop.wire(run_button)
            self.on(run_button.click)
        if consent is not None:
            self.agreed = consent.click(self._event(True), self.inputs, self.outputs, **PRIVATE)

    def on(self, trigger: Callable[..., Any]) -> None:
        """Has this event run it too."""
        trigger(self.run, self.inputs, self.outputs, **PRIVATE)

    def idle(self) -> Updates:
        """The buttons while nothing runs and nothing is asked."""
        return self._buttons(busy=False) | self._no_question()

    def _event(self, may_download: bool | None) -> Callable[..., AsyncGenerator[Updates, None]]:
        async def run(request: gr.Request, *values: Any) -> AsyncGenerator[Updates, None]:
            # The buttons are sent with every update, as a page that still opens may miss one.
            busy, idle = self._buttons(busy=True), self.idle()
            presenter = self.presenter(*values)
            with ExitStack() as files, self._stop.run(request) as run:
                visitor = Visitor(self._edge, request, may_download, files)
                try:
                    yield presenter.begin() | busy | self._no_question()
                    for events in presenter.requests(visitor):
                        async with aclosing(events):
                            async for event in events:
                                run.check()
                                if isinstance(event, (Partial, Done)):
                                    yield await presenter.result(event) | busy
                                else:
                                    yield presenter.waiting(event) | busy
                    yield presenter.finished() | idle
                except SuiteError as error:
                    if isinstance(error, NeedsDownload) and self._consent is not None:
                        agree = gr.Button(f"Fetch it ({error.nbytes / 1e6:,.0f} MB) and go on", visible=True)
                        yield presenter.message(render.question(error)) | idle | {self._consent: agree}
                    else:
                        yield presenter.problem(error) | idle
                except Cancelled:
                    yield ({} if run.discarded else presenter.stopped()) | idle

        return run

    def _buttons(self, *, busy: bool) -> Updates:
        run = {} if self._run_button is None else {self._run_button: gr.Button(interactive=not busy)}
        return {**run, self._stop.button: gr.Button(interactive=busy)}

    def _no_question(self) -> Updates:
        return {} if self._consent is None else {self._consent: gr.Button(visible=False)}


def consent_button(name: str) -> gr.Button:
    """The button that agrees to a download, under `render.question`; hidden while there is no question."""
    return gr.Button("", variant="primary", visible=False, elem_id=f"{name}-consent")


def errors_in(place: gr.HTML, act: Callable[..., Updates]) -> Callable[..., Updates]:
    """The function of an event that ends at once: `act`, with a `SuiteError` shown in `place`."""

    @functools.wraps(act)
    def run(*values: Any) -> Updates:
        try:
            return act(*values)
        except SuiteError as error:
            return {place: render.problem(error)}

    return run
