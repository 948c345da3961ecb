"""The page: header, a tab for each Space, the Models tab, and the API."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from shared.errors import SuiteError
from shared.page import render
from shared.page.form import Page
from shared.page.inputs import PRIVATE, Inputs
from shared.page.models_tab import build_models_tab
from shared.serving.batch import batch_task
from shared.serving.endpoint import Endpoint
from shared.serving.runtime import Runtime
from shared.serving.space import BrokenSpace, Space
from shared.transport.edge import Edge
from shared.transport.gradio.batch_api import batch_api
from shared.transport.gradio.gradio_api import api_function
from shared.transport.gradio.guard import StrictBlocks

log = logging.getLogger(__name__)

TITLE = "Foundation models, hands on"

ADDRESS_JS = "() => [window.suite.address]"
"""The page's query parameters as they were when it was opened."""


@dataclass(frozen=True)
class ExtraTab:
    """A tab that is no Space: its title, its id in addresses, and what builds it."""

    title: str
    id: str
    build: Callable[[Edge, gr.Tab], Any]


def build(
    spaces: Sequence[Space | BrokenSpace], edge: Edge, endpoints: Sequence[Endpoint], more: Sequence[ExtraTab] = ()
) -> Any:
    """The Blocks: header, a tab for each Space, the Models tab, further tabs, and the API of the endpoints."""
    runtime = edge.runtime
    pages: list[Page] = []
    with StrictBlocks(
        most_waiting=runtime.settings.queue_size,
        title=TITLE,
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(3600, 3600),
    ) as blocks:
        gr.HTML(header(), elem_id="suite-header", padding=False)
        with gr.Tabs(elem_id="suite-tabs") as tabs:
            for space in spaces:
                with gr.Tab(space.title, id=space.name) as tab:
                    page = build_space(space, edge)
                    if page is not None:
                        pages.append(page)
                tab.select(None, None, None, js=f"() => window.suite.tab({space.name!r})", **PRIVATE)
            with gr.Tab("Models", id="models") as tab:
                build_models_tab(edge, tab)
            tab.select(None, None, None, js="() => window.suite.tab('models')", **PRIVATE)
            for extra in more:
                with gr.Tab(extra.title, id=extra.id) as tab:
                    extra.build(edge, tab)
                tab.select(None, None, None, js=f"() => window.suite.tab({extra.id!r})", **PRIVATE)
        for endpoint in endpoints:
            gr.api(api_function(endpoint, edge), api_name=endpoint.name, concurrency_limit=None)
        if any(endpoint.rows for endpoint in endpoints):
            batch_api(edge, batch_task(endpoints))
        address = gr.JSON({}, visible=False)
        forms = [form for page in pages for form in page.forms]
        for form in forms:
            # What is answered in advance is what the page shows first.
            for first in form.requests_of_first_example():
                edge.traffic.answers.expect(form.endpoint.name, first)
            blocks.load(form.first_answer, address, form.driver.outputs, js=ADDRESS_JS, **PRIVATE)
        inputs = [one for page in pages for one in page.inputs]
        refresh_choices(blocks, pages, runtime)
        restore_from_link(
            blocks, address, tabs, inputs, {space.name for space in spaces} | {"models", *(extra.id for extra in more)}
        )
    return blocks


def build_space(space: Space | BrokenSpace, edge: Any) -> Any:
    """A Space's tab; one that fails shows why in its own tab, and the others work."""
    failure: Exception
    if isinstance(space, Space):
        page = Page(edge, space)
        gr.HTML(f'<p class="space-summary">{escape(space.summary)}</p>', padding=False)
        with gr.Column() as column:
            try:
                space.build(page)
            except Exception as error:
                log.exception("the tab of %s could not be built", space.name)
                column.children.clear()
                failure = error
            else:
                return page
    else:
        failure = space.error
    reason = (
        f"This Space could not be built ({type(failure).__name__}); the server's log says more. The other tabs work"
    )
    gr.HTML(render.shown(render.problem(SuiteError(reason))))
    return None


def restore_from_link(
    blocks: gr.Blocks, address: gr.JSON, tabs: gr.Tabs, inputs: Sequence[Inputs], known_tabs: set[str]
) -> None:
    """On opening the page: the tab and the inputs that the address names (`?tab=…&form=…&text=…`)."""
    groups = inner_tabs(blocks)

    def restore(query: dict[str, str]) -> list[Any]:
        # The address is anybody's input, and so is a call of this event.
        query = {k: v for k, v in query.items() if isinstance(v, str)} if isinstance(query, dict) else {}
        wanted = query.get("form")
        updates: list[Any] = [gr.Tabs(selected=query["tab"]) if query.get("tab") in known_tabs else gr.skip()]
        updates += [gr.Tabs(selected=wanted) if wanted in ids else gr.skip() for _, ids in groups]
        for one in inputs:
            updates += one.restored(query) if wanted == one.endpoint.name else [gr.skip()] * len(one.fields)
        return updates

    targets = [tabs, *(group for group, _ in groups), *(component for one in inputs for component in one.fields)]
    blocks.load(restore, address, targets, js=ADDRESS_JS, queue=False, **PRIVATE)


def inner_tabs(blocks: Any) -> list[tuple[Any, set[str]]]:
    """The tab groups inside Spaces, with the ids of their tabs, for links to restore."""
    groups = [block for block in blocks.blocks.values() if isinstance(block, gr.Tabs)]
    return [
        (group, {tab.id for tab in group.children if isinstance(tab, gr.Tab) and isinstance(tab.id, str)})
        for group in groups
        if group.elem_id != "suite-tabs"
    ]


def refresh_choices(blocks: gr.Blocks, pages: Sequence[Page], runtime: Runtime) -> None:
    """On opening the page: which checkpoints and languages there are to choose from now."""
    components = [component for page in pages for component, _ in page.refreshers]
    refreshers = [refreshed for page in pages for _, refreshed in page.refreshers]

    def refreshed() -> Any:
        runtime.hub.ask()  # in the background; who opens the page next sees what came of it
        fresh = [refresh() for refresh in refreshers]
        return fresh if len(fresh) > 1 else fresh[0]  # Gradio takes a list for one output as that output's value

    if components:
        blocks.load(refreshed, None, components, queue=False, **PRIVATE)


def header() -> str:
    """Name, profile and why, memory. The page's script fills in the last two from `/health`."""
    return (
        '<header class="suite-header"><h1>' + TITLE + "</h1>"
        '<span class="profile" title="Which checkpoints are the defaults, and why"></span>'
        '<span class="memory" title="Weights in memory, of the budget for them"><span class="meter"><i></i></span>'
        '<span class="memory-text"></span></span><span class="spacer"></span>'
        '<a href="?view=api">API</a><button data-act="theme">Light / dark</button></header>'
    )
