"""The Stop button: it cancels the visitor's runs, and each run itself sends its last update.

Gradio's own `cancels=` closes a generator from outside, and an update sent earlier may then reach the page after
Stop's, and undo it. So Stop sets a flag instead. The run reads it at its next event, at the latest at the next
heartbeat (`transport/pump.py`), and its last update takes the same way as all before it, so none comes later.
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
"""Most seconds that `Stop.ended` waits for a run. With heartbeats it waits for one of them only."""


class Run:
    """One run for one visitor, from its first update to its last."""

    def __init__(self) -> None:
        self._cancelled = False
        self.over = asyncio.Event()
        self.discarded = False
        """Whether its last update must show nothing, as the page is about to be cleared."""

    def end(self) -> None:
        """Has the next `check` end it."""
        self._cancelled = True

    def check(self) -> None:
        """Raises `Cancelled` after Stop. To be called for each event, before it is shown."""
        if self._cancelled:
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
            # The run is over already: its last update was lost, with the connection for example.
            idle: dict[Any, Any] = {button: gr.Button(interactive=True) for button in run_buttons}
            return {self.button: gr.Button(interactive=False), **idle}

        self.button.click(press, None, [self.button, *run_buttons], queue=False, **PRIVATE)

    @contextmanager
    def run(self, request: gr.Request) -> Iterator[Run]:
        """A context manager around one run, which Stop can cancel."""
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
        """Cancels this session's runs, and returns them."""
        running = set(self._runs.get(request.session_hash, ()))
        for run in running:
            run.end()
        return running

    async def ended(self, request: gr.Request) -> None:
        """Cancels this session's runs and waits until they have ended, before the page is cleared.

        Gradio sends a run's last update again when the run is over, so that update must show nothing.
        """
        if running := self.end(request):
            for run in running:
                run.discarded = True
            await asyncio.wait([asyncio.create_task(run.over.wait()) for run in running], timeout=LONGEST_END)
