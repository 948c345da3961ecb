"""The batch part of a form: paste lines or upload a CSV, watch the table grow, download it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from shared import render
from shared.batch import Batch, BatchResult, batch_task, from_lines, read_file
from shared.edge import Edge
from shared.endpoint import Endpoint
from shared.errors import Cancelled, SuiteError
from shared.events import Done, Partial, Running

SHOWN_ROWS = 20


def batch_panel(
    edge: Edge, endpoint: Endpoint, request_values: Callable[[Sequence[Any]], dict[str, Any]], fields: Sequence[Any]
) -> None:
    """Adds the panel under a form; the form's other fields are the settings of every row."""
    batch = Endpoint(batch_task([endpoint]), Batch, {"table": str})
    text_field = next(iter(endpoint.request.model_fields))
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    async def run(
        request: gr.Request, pasted: str, file: str | None, column: str, *raw: Any
    ) -> AsyncGenerator[Any, None]:
        busy = gr.Button(interactive=False), gr.Button(interactive=True)
        idle = gr.Button(interactive=True), gr.Button(interactive=False)
        try:
            settings = {name: value for name, value in request_values(raw).items() if name != text_field}
            column = (column or "text").strip()
            text = read_file(file, edge.runtime.settings) if file else from_lines(pasted or "", column)
            values = {"csv_text": text, "task": endpoint.name, "column": column, "settings": settings}
            yield render.waiting(Running()), gr.skip(), *busy
            async with aclosing(edge.events(batch, values, request)) as events:
                table = ""
                async for event in events:
                    if isinstance(event, (Partial, Done)):
                        table = draw(event.result)
                    progress = "" if isinstance(event, (Partial, Done)) else render.waiting(event)
                    if isinstance(event, Done):
                        with written(event.result, endpoint.name) as path:
                            yield render.run_line(event.run) + table, gr.File(path, visible=True), *idle
                    else:
                        # The buttons are left alone: what was on its way when Stop was pressed must not undo it.
                        yield progress + table, gr.skip(), gr.skip(), gr.skip()
            yield gr.skip(), gr.skip(), *idle
        except SuiteError as error:
            yield render.problem(error), gr.skip(), *idle
        except Cancelled:
            yield gr.skip(), gr.skip(), *idle

    with gr.Accordion("Batch: many texts with these settings", open=False):
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                pasted = gr.Textbox(
                    label="One text a line", lines=5, max_lines=12, elem_id=f"{endpoint.name}-batch-lines"
                )
                with gr.Row():
                    file = gr.File(label="or a CSV file", file_types=[".csv", ".tsv", ".txt"], height=110)
                    column = gr.Textbox("text", label="Column that holds the text", max_lines=1)
                with gr.Row():
                    start = gr.Button("Run batch", elem_id=f"{endpoint.name}-batch-run")
                    stop = gr.Button("Stop", interactive=False, elem_id=f"{endpoint.name}-batch-stop")
            with gr.Column(scale=6, min_width=320):
                shown = gr.HTML(
                    '<p class="limits">The table appears here.</p>', elem_id=f"{endpoint.name}-batch-result"
                )
                download = gr.File(label="Download", visible=False, interactive=False)
        running = start.click(
            run,
            [pasted, file, column, *fields],
            [shown, download, start, stop],
            concurrency_limit=None,
            **private,
        )
        stop.click(
            lambda: (gr.Button(interactive=True), gr.Button(interactive=False)),
            None,
            [start, stop],
            cancels=[running],
            queue=False,
            **private,
        )


def draw(result: BatchResult) -> str:
    """The last rows of the table so far."""
    rows = [[row.get(name, "") for name in result.table.columns] for row in result.table.rows[-SHOWN_ROWS:]]
    count = len(result.table.rows)
    said = f"{count:,} rows answered" + (f", {result.failed} with an error" if result.failed else "")
    if count > SHOWN_ROWS:
        said += f"; the last {SHOWN_ROWS} are shown"
    return f'<p class="limits" role="status">{said}</p>' + render.table(result.table.columns, rows)


@contextmanager
def written(result: BatchResult, name: str) -> Iterator[str]:
    """The table as a file, for as long as Gradio takes its copy of it. With a mark that tells Excel it is UTF-8."""
    with tempfile.TemporaryDirectory(prefix="batch-") as folder:
        path = Path(folder) / f"{name}.csv"
        path.write_text(result.table.csv(), encoding="utf-8-sig")
        yield str(path)
