"""The batch part of a form: paste lines or upload a CSV, watch the table grow, download it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from shared.events import Done, Event, Partial, Waiting
from shared.page import render
from shared.page.driver import Driver, Presenter, Updates, Visitor, consent_button
from shared.page.stop import NOTHING_YET, STOPPED, Stop
from shared.serving.batch import Batch, BatchResult, batch_task, from_lines, read_file, written
from shared.serving.endpoint import Endpoint
from shared.transport.edge import Edge

SHOWN_ROWS = 20


def batch_panel(
    edge: Edge, endpoint: Endpoint, request_values: Callable[[Sequence[Any]], dict[str, Any]], fields: Sequence[Any]
) -> Any:
    """Adds the panel under a form; the form's other fields are the settings of every row.

    Returns the event by which a visitor agrees to a download.
    """
    text_field = next(iter(endpoint.request.model_fields))
    name = f"{endpoint.name}-batch"

    with gr.Accordion("Batch: many texts with these settings", open=False):
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                pasted = gr.Textbox(label="One text a line", lines=5, max_lines=12, elem_id=f"{name}-lines")
                with gr.Row():
                    file = gr.File(label="or a CSV file", file_types=[".csv", ".tsv", ".txt"], height=110)
                    column = gr.Textbox("text", label="Column that holds the text", max_lines=1)
                with gr.Row():
                    start = gr.Button("Run batch", elem_id=f"{name}-run")
                    stop = Stop(name)
            with gr.Column(scale=6, min_width=320):
                shown = gr.HTML('<p class="limits">The table appears here.</p>', elem_id=f"{name}-result")
                consent = consent_button(name)
                download = gr.File(label="Download", visible=False, interactive=False)

        def present(lines: str, csv: str | None, column: str, *raw: Any) -> BatchPresenter:
            settings = {name: value for name, value in request_values(raw).items() if name != text_field}

            def values() -> dict[str, Any]:
                name = (column or "text").strip()
                text = read_file(csv, edge.runtime.settings) if csv else from_lines(lines or "", name)
                return {"csv_text": text, "task": endpoint.name, "column": name, "settings": settings}

            return BatchPresenter(endpoint, values, shown, download)

        inputs = [pasted, file, column, *fields]
        return Driver(edge, present, inputs, [shown, download], stop, run_button=start, consent=consent).agreed


class BatchPresenter(Presenter):
    """One run of a batch: the table grows, and at the end there is a file of it."""

    def __init__(
        self, endpoint: Endpoint, values: Callable[[], dict[str, Any]], shown: gr.HTML, download: gr.File
    ) -> None:
        """`values` are those of the batch's request; reading them may raise `SuiteError`."""
        self._endpoint, self._values = endpoint, values
        self._shown, self._download = shown, download
        self._table = ""
        self._finished: Updates = {}

    def requests(self, visitor: Visitor) -> Iterator[AsyncGenerator[Event, None]]:
        self._files = visitor.files
        yield visitor.events(Endpoint(batch_task([self._endpoint]), Batch, {"table": str}), self._values())

    def waiting(self, event: Waiting) -> Updates:
        return {self._shown: render.waiting(event) + self._table}

    async def result(self, event: Partial[BatchResult] | Done[BatchResult]) -> Updates:
        self._table = draw(event.result)
        if isinstance(event, Partial):
            return {self._shown: self._table}
        path = self._files.enter_context(written(event.result, self._endpoint.name))
        self._finished = {
            self._shown: render.run_line(event.run) + self._table,
            self._download: gr.File(path, visible=True),
        }
        return {}

    def finished(self) -> Updates:
        return self._finished

    def message(self, html: str) -> Updates:
        return {self._shown: html}

    def stopped(self) -> Updates:
        return {self._shown: STOPPED + self._table if self._table else NOTHING_YET}


def draw(result: BatchResult) -> str:
    """The last rows of the table so far."""
    rows = [[row.get(name, "") for name in result.table.columns] for row in result.table.rows[-SHOWN_ROWS:]]
    count = len(result.table.rows)
    said = f"{count:,} rows answered" + (f", {result.failed} with an error" if result.failed else "")
    if count > SHOWN_ROWS:
        said += f"; the last {SHOWN_ROWS} are shown"
    return f'<p class="limits" role="status">{said}</p>' + render.table(result.table.columns, rows)
