"""Whatever runs on the page: progress, a result or an error, and the buttons that go with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from shared.errors import InvalidInput, NeedsDownload, SuiteError
from shared.events import Done, Event, Partial, RunInfo, Running, Waiting
from shared.page.driver import Driver, Presenter, Updates, Visitor, consent_button, errors_in
from shared.page.stop import Stop

VISITOR: Any = SimpleNamespace(session_hash="a")
RUN = RunInfo(checkpoint="c", revision="r", engine="e")


class Words(Presenter):
    """Shows the words of scripted events; an error among them is raised."""

    def __init__(self, place: gr.HTML, script: list[Event | SuiteError | Callable[[], Any]]) -> None:
        self.place, self.script = place, script

    def requests(self, visitor: Visitor) -> Iterator[AsyncGenerator[Event, None]]:
        async def events() -> AsyncGenerator[Event, None]:
            for event in self.script:
                if isinstance(event, SuiteError):
                    raise event
                if callable(event):
                    event()
                else:
                    yield event

        yield events()

    def waiting(self, event: Waiting) -> Updates:
        return {self.place: "waiting"}

    async def result(self, event: Partial[str] | Done[str]) -> Updates:
        return {self.place: event.result}

    def message(self, html: str) -> Updates:
        return {self.place: html}

    def stopped(self) -> Updates:
        return {self.place: "stopped"}


class Shown:
    """A driver of its own, and what a run of a script shows."""

    def __init__(self, *, asks: bool = True) -> None:
        self.script: list[Any] = []
        with gr.Blocks():
            self.place, self.button, self.stop = gr.HTML(), gr.Button("Run"), Stop("form")
            self.consent = consent_button("form") if asks else None
            edge: Any = None
            self.driver = Driver(
                edge,
                lambda: Words(self.place, self.script),
                [],
                [self.place],
                self.stop,
                run_button=self.button,
                consent=self.consent,
            )

    def run(self, *script: Any) -> list[Updates]:
        self.script = list(script)

        async def updates() -> list[Updates]:
            return [update async for update in self.driver.run(VISITOR)]

        return asyncio.run(updates())

    def runnable(self, update: Updates) -> bool:
        assert update[self.button].interactive is not update[self.stop.button].interactive
        return update[self.button].interactive


def test_run_is_off_and_stop_on_until_the_result_is_there() -> None:
    shown = Shown()
    updates = shown.run(Running(), Partial("a"), Done("ab", RUN))
    assert [update.get(shown.place) for update in updates] == ["waiting", "waiting", "a", "ab", None]
    assert [shown.runnable(update) for update in updates] == [False] * 4 + [True]


def test_an_error_stands_in_the_place_of_the_result() -> None:
    shown = Shown()
    last = shown.run(Partial("a"), InvalidInput("is empty", field="text"))[-1]
    assert "<b>text</b> is empty" in last[shown.place]
    assert shown.runnable(last)


@pytest.mark.parametrize("asks", [True, False])
def test_a_download_is_asked_for_where_there_is_a_button_for_it(asks: bool) -> None:
    shown = Shown(asks=asks)
    last = shown.run(NeedsDownload("user/name", 5_000_000))[-1]
    assert "user/name" in last[shown.place]
    if shown.consent is not None:
        assert last[shown.consent].visible
        assert "5 MB" in last[shown.consent].value
    assert shown.runnable(last)


def test_nothing_is_shown_of_what_comes_after_stop() -> None:
    shown = Shown()
    last = shown.run(Partial("a"), lambda: shown.stop.end(VISITOR), Partial("b"))[-1]
    assert last[shown.place] == "stopped"
    assert shown.runnable(last)


def test_an_event_that_ends_at_once_shows_its_error() -> None:
    with gr.Blocks():
        place = gr.HTML()

    def act(fine: bool) -> Updates:
        if not fine:
            raise SuiteError("it cannot be")
        return {}

    run = errors_in(place, act)
    assert run(True) == {}
    assert "It cannot be." in run(False)[place]
