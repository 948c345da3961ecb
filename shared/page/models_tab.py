"""The Models tab: what is in memory, what could be, and the admin's buttons."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Iterator, Sequence
from html import escape
from typing import Any

import gradio as gr

from shared.checkpoints.catalog import Checkpoint
from shared.engines.choice import slower_here
from shared.errors import SuiteError
from shared.events import Done, Event, Partial, Waiting
from shared.page import adapters_tab, render
from shared.page.driver import Driver, Presenter, Updates, Visitor
from shared.page.inputs import PRIVATE
from shared.page.stop import Stop
from shared.scheduling.cache_entry import megabytes
from shared.serving.endpoint import Endpoint
from shared.serving.model_task import OneCheckpoint, act, is_fetched
from shared.serving.runtime import Runtime
from shared.transport.admin import is_admin
from shared.transport.edge import Edge


def sign_in_form(what: str) -> str:
    """Where the admin's token is typed. No component of Gradio's: their values reach the browser's history."""
    return (
        f'<div class="admin-form">{what} need the admin token, which the server printed at start.'
        '<label><span style="position:absolute;left:-999px">Admin token</span>'
        '<input type="password" autocomplete="off" placeholder="Admin token"></label>'
        '<button data-act="sign-in">Sign in</button><span role="status"></span></div>'
    )


def build_models_tab(edge: Edge, tab: gr.Tab) -> None:
    """The tab's content. The buttons' events check the visitor on the server, whatever the page shows."""
    gr.HTML('<p class="space-summary">Which checkpoints are in memory, who uses them, and what they cost.</p>')
    sign_in = gr.HTML(sign_in_form("Loading, pinning and unloading"), visible=False)
    with gr.Row(equal_height=False):
        ids = known_ids(edge.runtime)
        chosen = gr.Dropdown(ids, value=ids[0], label="Checkpoint", filterable=False, min_width=260)
        with gr.Column(scale=2), gr.Row():
            buttons = {
                name: gr.Button(name.capitalize(), size="sm", min_width=70, elem_id=f"models-{name}")
                for name in ("load", "unload", "pin", "unpin", "remove")
            }
            stop = Stop("models", size="sm", min_width=70)
            refresh = gr.Button("Refresh", size="sm", min_width=70, elem_id="models-refresh")
    with gr.Row(equal_height=False):
        wanted = gr.Textbox(
            "",
            label="Another model of the Hub",
            info="Its id, such as user/name. What it can do is read from its configuration and card.",
            max_lines=1,
            elem_id="models-wanted",
        )
        add = gr.Button("Add", size="sm", min_width=70, scale=0, elem_id="models-add")
        wanted_adapter = gr.Textbox(
            "",
            label="An adapter",
            info="A folder of this machine that peft wrote (/home/me/topics), or its id on the Hub.",
            max_lines=1,
            elem_id="models-wanted-adapter",
        )
        add_adapter = gr.Button("Add adapter", size="sm", min_width=100, scale=0, elem_id="models-add-adapter")

    said = gr.HTML("", elem_id="models-said")
    slower = gr.HTML("", elem_id="models-slower", visible=False)
    report = gr.HTML(draw(edge.runtime), elem_id="models-report", elem_classes="result-block")

    def shown(request: gr.Request) -> tuple[str, Any, Any]:
        edge.runtime.hub.ask()
        signed_in = is_admin(edge.runtime.settings, request)
        return draw(edge.runtime), gr.HTML(visible=not signed_in), gr.Dropdown(choices=known_ids(edge.runtime))

    sources = {**dict.fromkeys(buttons, chosen), "add": wanted, "add adapter": wanted_adapter}
    for name, button in {**buttons, "add": add, "add adapter": add_adapter}.items():
        present = functools.partial(ActPresenter, edge.runtime, name, report, said, chosen)
        Driver(edge, present, [sources[name]], [report, said, chosen], stop).on(button.click)
    stop.wire()

    refresh.click(shown, None, [report, sign_in, chosen], queue=False, **PRIVATE)
    tab.select(shown, None, [report, sign_in, chosen], queue=False, **PRIVATE)

    def slower_shown() -> Any:
        note = slower_note(edge.runtime)
        return gr.HTML(note, visible=bool(note))

    # Events of their own: they import the engines, which the report need not wait for.
    refresh.click(slower_shown, None, slower, queue=False, **PRIVATE)
    tab.select(slower_shown, None, slower, queue=False, **PRIVATE)


class ActPresenter(Presenter):
    """One press of a button of this tab: the report, and under the buttons what is done."""

    def __init__(
        self, runtime: Runtime, action: str, report: gr.HTML, said: gr.HTML, menu: gr.Dropdown, checkpoint: str | None
    ) -> None:
        self._runtime, self._action, self._checkpoint = runtime, action, checkpoint or ""
        self._report, self._said, self._menu = report, said, menu
        self._done = ""

    def requests(self, visitor: Visitor) -> Iterator[AsyncGenerator[Event, None]]:
        values = {"action": self._action, "checkpoint": self._checkpoint}
        yield visitor.events(Endpoint(act, OneCheckpoint, {}), values)

    def waiting(self, event: Waiting) -> Updates:
        return self.message(render.waiting(event))

    async def result(self, event: Partial[Any] | Done[Any]) -> Updates:
        self._done = render.note(event.result.said)
        return {}

    def finished(self) -> Updates:
        if self._action == "add":
            added = self._checkpoint.strip()
            menu = gr.Dropdown(choices=known_ids(self._runtime), value=added)
            return {**self.message(now_there(self._runtime.catalog.choose_by_id(added))), self._menu: menu}
        menu = gr.Dropdown(choices=known_ids(self._runtime)) if self._done else gr.skip()
        return {**self.message(self._done), self._menu: menu}

    def message(self, html: str) -> Updates:
        return {self._report: draw(self._runtime), self._said: html}

    def problem(self, error: SuiteError) -> Updates:
        # Without its field: there is none of that name on this tab.
        return self.message(render.problem(SuiteError(error.message)))

    def stopped(self) -> Updates:
        return self.message("")


def slower_note(runtime: Runtime) -> str:
    """Names the checkpoints that fall back to the reference engine here, and why."""
    here = [checkpoint for checkpoint in runtime.catalog if is_fetched(checkpoint, runtime)]
    return "".join(
        render.note(
            f"On the reference engine: {', '.join(ids)}, because {reason}. Slower, and requests are not batched."
        )
        for reason, ids in slower_here(here, runtime.settings).items()
    )


def now_there(checkpoint: Checkpoint) -> str:
    return render.note(
        f"{checkpoint.id} was added, for {' and '.join(checkpoint.tasks)}. It is in the menus of pages opened from now "
        f"on, and fetched ({megabytes(checkpoint.download_bytes)}) when it is first used."
    )


def known_ids(runtime: Runtime) -> list[str]:
    return [*(checkpoint.id for checkpoint in runtime.catalog), *(adapter.id for adapter in runtime.adapters)]


def draw(runtime: Runtime) -> str:
    """Budget, hits and misses, a row for every checkpoint on this machine, and below them the others."""
    report = runtime.cache.report()
    held = {row["checkpoint"]: row for row in report["checkpoints"]}
    rows, elsewhere = [], []
    for checkpoint in runtime.catalog:
        row = held.get(checkpoint.id)
        if row is None and not is_fetched(checkpoint, runtime):
            elsewhere.append(checkpoint)
            continue
        used = f"{row['seconds_since_use']:.0f} s ago" if row and row["seconds_since_use"] is not None else ""
        rows.append(
            (
                checkpoint.id,
                render.short_revision((row or {}).get("revision") or checkpoint.revision) or "not pinned",
                state_of(row),
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
    hub = runtime.hub.report()
    why = {"answers": "the Hub answers", "asking": "the Hub has not answered yet", "off": "no network is used"}
    head = (
        f"<p><b>{megabytes(report['bytes_in_use'])}</b> of {megabytes(report['budget_bytes'])} "
        f'<span class="gauge"><i style="width:{100 * share:.1f}%"></i></span> '
        f"{report['hits']} hits, {report['misses']} misses, {report['evictions']} evictions · "
        f"profile <b>{escape(runtime.settings.profile)}</b>, {escape(why.get(hub['state'], hub['reason']))}</p>"
    )
    here = render.table(columns, rows, ["memory", "in use by", "hits"])
    return head + here + adapters_tab.draw(runtime, held) + not_here(elsewhere)


def not_here(checkpoints: Sequence[Checkpoint]) -> str:
    """The checkpoints whose files are not on this machine."""
    if not checkpoints:
        return ""
    rows = [
        (
            checkpoint.id,
            render.short_revision(checkpoint.revision) or "not pinned",
            ", ".join(checkpoint.tasks) or "a base to fine-tune",
            megabytes(checkpoint.download_bytes),
            "the Hub" if checkpoint.profile == "hub" else "a package; make setup brings it",
            checkpoint.licence,
        )
        for checkpoint in checkpoints
    ]
    columns = ["checkpoint", "revision", "does", "to fetch", "from", "licence"]
    return (
        '<details class="elsewhere" data-fold="elsewhere">'
        f"<summary>{len(rows)} more that are not on this machine</summary>"
        f"{render.table(columns, rows, ['to fetch'])}</details>"
    )


def state_of(row: dict[str, Any] | None) -> str:
    """Whether a checkpoint that is here is in memory too."""
    if row is not None:
        return row["state"] + (", pinned" if row["pinned"] else "")
    return "on disk"
