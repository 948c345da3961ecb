"""`/batch`: the one endpoint bound to components, because a file goes in and a file comes out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from shared.errors import Cancelled, InvalidInput, SuiteError
from shared.events import Done
from shared.serving.batch import Batch, parse_settings, read_file, written
from shared.serving.endpoint import Endpoint
from shared.transport.edge import Edge


def batch_api(edge: Edge, task: Any) -> None:
    """Adds the endpoint: task, CSV file and settings in; CSV file and RunInfo out."""
    endpoint = Endpoint(task, Batch, {"table": str})

    async def batch(task: str, file: str, settings: Any, request: gr.Request) -> AsyncGenerator[tuple[Any, Any], None]:
        try:
            inputs = parse_settings(settings)
            column = str(inputs.pop("column", "text"))
            if not file:
                raise InvalidInput("is missing; send a CSV", field="file")
            text = read_file(file, edge.runtime.settings)
            values = {"csv_text": text, "task": task, "column": column, "settings": inputs}
            async with aclosing(edge.events(endpoint, values, request)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        with written(event.result, "batch") as path:
                            yield path, event.run.model_dump()
                    else:
                        yield None, event.as_json()
        except Cancelled:
            raise gr.Error("the request was cancelled", print_exception=False) from None
        except SuiteError as error:
            raise gr.Error(str(error), print_exception=False, title=type(error).__name__) from None

    with gr.Column(visible=False):
        inputs = [
            gr.Textbox("zero_shot", label="task"),
            gr.File(label="file"),
            gr.JSON({}, label="settings"),
        ]
        outputs = [gr.File(label="table"), gr.JSON(label="run_info")]
        trigger = gr.Button()
    trigger.click(
        batch,
        inputs,
        outputs,
        api_name="batch",
        api_description="Answers every row of a CSV and adds the answers as columns. `settings` holds the task's "
        "inputs but the text, and `column`, the name of the text's column (default `text`).",
        concurrency_limit=None,
        show_progress="hidden",
    )
