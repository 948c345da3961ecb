"""The batch part of a form: paste lines or upload a CSV, watch the table grow, download it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import gradio as gr

from shared.errors import Cancelled, NeedsDownload, SuiteError
from shared.events import Done, Partial, Running
from shared.page import render
from shared.page.consent import consent_button, no_question, offer
from shared.page.inputs import PRIVATE
from shared.page.stop import NOTHING_YET, STOPPED, Stop, busy_buttons, idle_buttons
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
    batch = Endpoint(batch_task([endpoint]), Batch, {"table": str})
    text_field = next(iter(endpoint.request.model_fields))
    name = f"{endpoint.name}-batch"

    async def run(request: gr.Request, *raw: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        async with aclosing(answered(request, *raw, may_download=False)) as outputs:
            async for output in outputs:
                yield output

    async def run_agreed(request: gr.Request, *raw: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        """The same, after the visitor agreed to fetch what it needs."""
        async with aclosing(answered(request, *raw, may_download=True)) as outputs:
            async for output in outputs:
                yield output

    async def answered(
        request: gr.Request, pasted: str, file: str | None, column: str, *raw: Any, may_download: bool
    ) -> AsyncGenerator[tuple[Any, ...], None]:
        keep, table = gr.skip(), ""
        with stop.run(request) as run:
            try:
                settings = {name: value for name, value in request_values(raw).items() if name != text_field}
                column = (column or "text").strip()
                text = read_file(file, edge.runtime.settings) if file else from_lines(pasted or "", column)
                values = {"csv_text": text, "task": endpoint.name, "column": column, "settings": settings}
                yield render.waiting(Running()), keep, *busy_buttons(), no_question()
                async with aclosing(edge.events(batch, values, request, may_download=may_download)) as events:
                    async for event in events:
                        run.check()
                        if isinstance(event, (Partial, Done)):
                            table = draw(event.result)
                        if isinstance(event, Done):
                            with written(event.result, endpoint.name) as path:
                                result = render.run_line(event.run) + table, gr.File(path, visible=True)
                                yield *result, *idle_buttons(), keep
                        else:
                            progress = "" if isinstance(event, Partial) else render.waiting(event)
                            yield progress + table, keep, *busy_buttons(), keep
            except NeedsDownload as needed:
                yield render.question(needed), keep, *idle_buttons(), offer(needed)
            except SuiteError as error:
                yield render.problem(error), keep, *idle_buttons(), no_question()
            except Cancelled:
                yield STOPPED + table if table else NOTHING_YET, keep, *idle_buttons(), no_question()

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
        inputs = [pasted, file, column, *fields]
        outputs = [shown, download, start, stop.button, consent]
        stop.wire(start)
        start.click(run, inputs, outputs, **PRIVATE)
        return consent.click(run_agreed, inputs, outputs, **PRIVATE)


def draw(result: BatchResult) -> str:
    """The last rows of the table so far."""
    rows = [[row.get(name, "") for name in result.table.columns] for row in result.table.rows[-SHOWN_ROWS:]]
    count = len(result.table.rows)
    said = f"{count:,} rows answered" + (f", {result.failed} with an error" if result.failed else "")
    if count > SHOWN_ROWS:
        said += f"; the last {SHOWN_ROWS} are shown"
    return f'<p class="limits" role="status">{said}</p>' + render.table(result.table.columns, rows)
