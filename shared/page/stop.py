"""Stop: ends what fills a form for one visitor, who then reads from that run itself how it ended.

Gradio's own `cancels=` closes a run from outside, and what the run had shown before may reach the page after what
Stop shows, and undo it. So a run is told to end instead: it does so at its next event, of which there is one with every
heartbeat (`transport/pump.py`), and says its last word on the way by which all it shows comes. Nothing of it comes
later.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from shared.errors import Cancelled
from shared.page import render
from shared.page.inputs import PRIVATE

STOPPED = '<div class="run-line">Stopped. What was there so far is kept.</div>'

NOTHING_YET = render.shown('<p class="empty">Stopped before there was a result.</p>')

LONGEST_END = 10.0
"""Seconds that `Stop.ended` waits for a run that does not hear: a bound, never needed where heartbeats come."""


class Run:
    """What fills a form for one visitor, from its first word to its last."""

    def __init__(self) -> None:
        self._told = False
        self.over = asyncio.Event()
        self.discarded = False
        """Whether nobody wants to read how it ended."""

    def end(self) -> None:
        """Has the next `check` end it."""
        self._told = True

    def check(self) -> None:
        """Raises `Cancelled` after Stop. To be called for each event, before anything is shown of it."""
        if self._told:
            raise Cancelled


class Stop:
    """A form's Stop button and the runs that it ends: those of the session in which it is pressed."""

    def __init__(self, name: str, **look: Any) -> None:
        self.button = gr.Button("Stop", interactive=False, elem_id=f"{name}-stop", **look)
        self._runs: defaultdict[str | None, set[Run]] = defaultdict(set)

    def wire(self, *run_buttons: gr.Button) -> None:
        """`run_buttons` are those that a run disables."""

        async def press(request: gr.Request) -> dict[Any, Any]:
            if self.end(request):
                return {button: gr.skip() for button in (self.button, *run_buttons)}
            # The buttons wait for a run that is gone, its last word lost with the connection, say.
            idle: dict[Any, Any] = {button: gr.Button(interactive=True) for button in run_buttons}
            return {self.button: gr.Button(interactive=False), **idle}

        self.button.click(press, None, [self.button, *run_buttons], queue=False, **PRIVATE)

    @contextmanager
    def run(self, request: gr.Request) -> Iterator[Run]:
        """Around all that fills the form once; Stop reaches it from beginning to end."""
        run, session = Run(), request.session_hash
        self._runs[session].add(run)
        try:
            yield run
        finally:
            run.over.set()
            self._runs[session].discard(run)
            if not self._runs[session]:
                del self._runs[session]

    def end(self, request: gr.Request) -> set[Run]:
        """Tells what runs in this session to end, and returns it."""
        running = set(self._runs.get(request.session_hash, ()))
        for run in running:
            run.end()
        return running

    async def ended(self, request: gr.Request) -> None:
        """The same, and waits until all of it has ended, for who is about to discard what it has shown.

        Gradio sends the last word of a run again when the run is over, so it should show nothing then.
        """
        if running := self.end(request):
            for run in running:
                run.discarded = True
            await asyncio.wait([asyncio.create_task(run.over.wait()) for run in running], timeout=LONGEST_END)
