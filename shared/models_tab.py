"""The Models tab: what is in memory, what could be, and the admin's buttons."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from html import escape
from typing import Any

import gradio as gr

from shared import render
from shared.admin import is_admin, require_admin
from shared.cache import megabytes
from shared.context import Context, Runtime
from shared.edge import Edge
from shared.endpoint import Endpoint, Traffic
from shared.errors import Cancelled, SuiteError
from shared.events import Done, Event, RunInfo
from shared.inputs import PRIVATE
from shared.requests import Request

SIGN_IN = (
    '<div class="admin-form">Loading, pinning and unloading need the admin token, which the server printed at start.'
    '<label><span style="position:absolute;left:-999px">Admin token</span>'
    '<input type="password" autocomplete="off" placeholder="Admin token"></label>'
    '<button data-act="sign-in">Sign in</button><span role="status"></span></div>'
)


class Nothing(Request):
    """A request without inputs."""


class Report:
    """The cache's report with the catalog beside it."""

    def __init__(self, runtime: Runtime, traffic: Traffic) -> None:
        self.content = {
            "profile": runtime.settings.profile,
            **runtime.cache.report(),
            "requests": runtime.admission.report(),
            "endpoints": traffic.report(),
            "catalog": [
                {
                    "id": c.id,
                    "revision": c.revision,
                    "tasks": list(c.tasks),
                    "languages": list(c.languages),
                    "licence": c.licence,
                    "parameters": c.parameters,
                    "context_window": c.context_window,
                    "limits": c.limits,
                }
                for c in runtime.catalog
            ],
        }

    def outputs(self) -> tuple[Any, ...]:
        return (self.content,)


def models_endpoint(traffic: Traffic) -> Endpoint:
    """`/models`: the model cache's report."""

    def models(request: Nothing, context: Context) -> Iterator[Event]:
        """What is in memory, what is in use, and which checkpoints there are."""
        report = Report(context.runtime, traffic)
        yield Done(report, RunInfo(checkpoint="", revision="", engine=""))

    return Endpoint(models, Nothing, {"report": dict})


class OneCheckpoint(Request):
    action: str
    checkpoint: str


class Acted:
    def outputs(self) -> tuple[Any, ...]:
        return ()


def act(request: OneCheckpoint, context: Context) -> Iterator[Event]:
    """Loads, unloads, pins or unpins a checkpoint; for the admin alone."""
    require_admin(context.admin)
    cache = context.runtime.cache
    checkpoint = context.catalog.choose_by_id(request.checkpoint)
    if request.action == "load":
        (yield from cache.borrow(checkpoint)).close()
    elif request.action == "pin":
        yield from cache.pin(checkpoint)
    elif request.action == "unpin":
        cache.unpin(checkpoint.id)
    else:
        cache.unload(checkpoint.id)
    yield Done(Acted(), RunInfo(checkpoint=checkpoint.id, revision=checkpoint.revision, engine=checkpoint.engine))


def build_models_tab(edge: Edge, tab: gr.Tab) -> None:
    """The tab's content. The buttons' events check the visitor on the server, whatever the page shows."""
    endpoint = Endpoint(act, OneCheckpoint, {})
    ids = [c.id for c in edge.runtime.catalog]
    gr.HTML('<p class="space-summary">Which checkpoints are in memory, who uses them, and what they cost.</p>')
    report = gr.HTML(draw(edge.runtime), elem_id="models-report", elem_classes="result-block")
    said = gr.HTML("", elem_id="models-said")
    sign_in = gr.HTML(SIGN_IN, visible=False)
    with gr.Row(equal_height=False):
        chosen = gr.Dropdown(ids, value=ids[0], label="Checkpoint", filterable=False, min_width=260)
        with gr.Column(scale=2), gr.Row():
            buttons = {
                name: gr.Button(name.capitalize(), size="sm", min_width=70, elem_id=f"models-{name}")
                for name in ("load", "unload", "pin", "unpin")
            }
            refresh = gr.Button("Refresh", size="sm", min_width=70, elem_id="models-refresh")

    def shown(request: gr.Request) -> tuple[str, Any]:
        return draw(edge.runtime), gr.HTML(visible=not is_admin(edge.runtime.settings, request))

    for name, button in buttons.items():

        async def run(
            request: gr.Request, checkpoint: str, action: str = name
        ) -> AsyncGenerator[tuple[str, str], None]:
            try:
                values = {"action": action, "checkpoint": checkpoint}
                async with aclosing(edge.events(endpoint, values, request)) as events:
                    async for event in events:
                        waiting = "" if isinstance(event, Done) else render.waiting(event)
                        yield draw(edge.runtime), waiting
            except SuiteError as error:
                yield draw(edge.runtime), render.problem(error)
            except Cancelled:
                yield draw(edge.runtime), ""

        button.click(run, [chosen], [report, said], **PRIVATE)
    refresh.click(shown, None, [report, sign_in], queue=False, **PRIVATE)
    tab.select(shown, None, [report, sign_in], queue=False, **PRIVATE)


def draw(runtime: Runtime) -> str:
    """Budget, hits and misses, and a row for every checkpoint of the catalog."""
    report = runtime.cache.report()
    held = {row["checkpoint"]: row for row in report["checkpoints"]}
    rows = []
    for checkpoint in runtime.catalog:
        row = held.get(checkpoint.id)
        used = f"{row['seconds_since_use']:.0f} s ago" if row and row["seconds_since_use"] is not None else ""
        state = "" if row is None else row["state"] + (", pinned" if row["pinned"] else "")
        rows.append(
            (
                checkpoint.id,
                checkpoint.revision,
                state or "on disk",
                megabytes(row["bytes"]) if row else "",
                row["engine"] if row else "",
                row["borrows"] if row else "",
                row["hits"] if row else "",
                used,
                checkpoint.licence,
            )
        )
    columns = ["checkpoint", "revision", "state", "memory", "engine", "in use by", "hits", "last used", "licence"]
    share = report["bytes_in_use"] / max(report["budget_bytes"], 1)
    head = (
        f"<p><b>{megabytes(report['bytes_in_use'])}</b> of {megabytes(report['budget_bytes'])} "
        f'<span class="gauge"><i style="width:{100 * share:.1f}%"></i></span> '
        f"{report['hits']} hits, {report['misses']} misses, {report['evictions']} evictions · "
        f"profile <b>{escape(runtime.settings.profile)}</b></p>"
    )
    return head + render.table(columns, rows, ["memory", "in use by", "hits"])
