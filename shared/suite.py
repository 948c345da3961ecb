"""The suite: settings → shared parts → every Space as a tab → a running server."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from shared.context import Context, Runtime
from shared.endpoint import Endpoint, Traffic
from shared.errors import Cancelled, SuiteError
from shared.runtime import start
from shared.settings import Settings
from shared.space import BrokenSpace, Space, discover

log = logging.getLogger(__name__)

TITLE = "Foundation models, hands on"


@dataclass
class Suite:
    """A running suite."""

    settings: Settings
    runtime: Runtime
    traffic: Traffic
    url: str
    blocks: Any

    def close(self) -> None:
        """Stops serving and ends what is being computed."""
        self.runtime.lane.close()
        self.runtime.cache.close()
        self.blocks.close(verbose=False)


def import_gradio() -> Any:
    """Imports Gradio with its telemetry off, and keeps it from taking our `spaces/` folder for a package.

    On Spaces hardware Gradio imports Hugging Face's own `spaces` package; from this repository's root the name
    finds our folder instead, as an empty namespace package, and Gradio fails on it.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    found = importlib.util.find_spec("spaces") if "spaces" not in sys.modules else None
    if found is not None and not found.origin:
        sys.modules["spaces"] = None  # type: ignore[assignment]
    import gradio

    return gradio


def serve(settings: Settings, *, block: bool = True) -> Suite:
    """Builds and launches the suite. With `block`, returns only after it was stopped."""
    gr = import_gradio()
    from shared import theme
    from shared.admin import routes

    settings = settings.with_admin_token()
    runtime = start(settings)
    traffic = Traffic(settings.rate_limit)
    spaces = discover(settings.spaces)
    blocks = build(spaces, runtime, traffic)
    blocks.queue(api_open=False, max_size=settings.queue_size, default_concurrency_limit=None)
    user, _, password = settings.auth.get_secret_value().partition(":")
    if not settings.everyone_is_admin:
        print(f"Admin token: {settings.admin_token.get_secret_value()}", flush=True)
    _, url, _ = blocks.launch(
        server_name=settings.host,
        server_port=settings.port or None,
        share=settings.share,
        auth=(user, password) if user else None,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        run_history=False,
        ssr_mode=False,
        pwa=False,
        enable_monitoring=False,
        mcp_server=settings.mcp,
        max_file_size=settings.max_upload,
        footer_links=["api", "settings"],
        theme=theme.theme(),
        css=theme.css(),
        head=theme.head(),
        app_kwargs={"routes": [health_route(runtime, traffic, time.monotonic()), *routes(settings)]},
    )
    print(f"Serving at {url}", flush=True)
    if settings.warm_examples:
        threading.Thread(target=warm, args=(spaces, runtime, traffic), name="warm-examples", daemon=True).start()
    suite = Suite(settings, runtime, traffic, url, blocks)
    if block:
        try:
            blocks.block_thread()
        finally:
            suite.close()
    return suite


def build(spaces: Sequence[Space | BrokenSpace], runtime: Runtime, traffic: Traffic) -> Any:
    """The Blocks: header, a tab for each Space, the Models tab, and the API."""
    import gradio as gr

    from shared.batch import batch_task
    from shared.batch_api import batch_api
    from shared.edge import Edge, api_function
    from shared.models_tab import build_models_tab, models_endpoint
    from shared.ui import PRIVATE, Page

    threads = ThreadPoolExecutor(runtime.settings.queue_size + runtime.settings.max_running, "request")
    edge = Edge(runtime, traffic, threads)
    endpoints: list[Endpoint] = []
    pages: list[Page] = []
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.HTML(header(runtime.settings), elem_id="suite-header", padding=False)
        with gr.Tabs(elem_id="suite-tabs") as tabs:
            for space in spaces:
                with gr.Tab(space.title, id=space.name) as tab:
                    page = build_space(space, edge)
                    if page is not None:
                        pages.append(page)
                        endpoints += page.space.endpoints
                tab.select(None, None, None, js=f"() => window.suite.tab({space.name!r})", **PRIVATE)
            with gr.Tab("Models", id="models") as tab:
                build_models_tab(edge, tab)
            tab.select(None, None, None, js="() => window.suite.tab('models')", **PRIVATE)
        for endpoint in [*endpoints, models_endpoint(traffic)]:
            gr.api(api_function(endpoint, edge), api_name=endpoint.name, concurrency_limit=None)
        if any(endpoint.rows for endpoint in endpoints):
            batch_api(edge, batch_task(endpoints))
        forms = [form for page in pages for form in page.forms]
        for form in forms:
            # What is answered in advance is what the page shows first.
            first = form.request_of_first_example()
            if first is not None:
                traffic.examples.expect(form.endpoint.name, first)
            blocks.load(form.first_answer, None, form.outputs, **PRIVATE)

        def restore(request: gr.Request) -> list[Any]:
            query = dict(request.query_params)
            updates = [
                update
                for form in forms
                for update in (
                    form.restored(query) if query.get("form") == form.endpoint.name else [gr.skip()] * len(form.fields)
                )
            ]
            known = {space.name for space in spaces} | {"models"}
            selected = gr.Tabs(selected=query["tab"]) if query.get("tab") in known else gr.skip()
            inner = [gr.Tabs(selected=query["form"]) if query.get("form") in ids else gr.skip() for _, ids in groups]
            return [selected, *inner, *updates]

        groups = inner_tabs(blocks)
        targets = [tabs, *(group for group, _ in groups), *(c for form in forms for c in form.fields)]
        blocks.load(restore, None, targets, queue=False, **PRIVATE)
    return blocks


def build_space(space: Space | BrokenSpace, edge: Any) -> Any:
    """A Space's tab; one that fails shows why in its own tab, and the others work."""
    import gradio as gr

    from shared import render
    from shared.ui import Page

    failure: Exception | None = None
    if isinstance(space, Space):
        page = Page(edge, space)
        gr.HTML(f'<p class="space-summary">{escape(space.summary)}</p>', padding=False)
        try:
            with gr.Column() as column:
                space.build(page)
            return page
        except Exception as error:
            log.exception("the tab of %s could not be built", space.name)
            column.children.clear()
            failure = error
    else:
        failure = space.error
    reason = f"This Space could not be built ({type(failure).__name__}); the server's log says more. The other tabs work"
    gr.HTML(render.shown(render.problem(SuiteError(reason))))
    return None


def inner_tabs(blocks: Any) -> list[tuple[Any, set[str]]]:
    """The tab groups inside Spaces, with the ids of their tabs, for links to restore."""
    import gradio as gr

    groups = [block for block in blocks.blocks.values() if isinstance(block, gr.Tabs)]
    return [
        (group, {tab.id for tab in group.children if isinstance(tab.id, str)})
        for group in groups
        if group.elem_id != "suite-tabs"
    ]


def header(settings: Settings) -> str:
    return (
        '<header class="suite-header"><h1>' + TITLE + "</h1>"
        f'<span title="Which checkpoints are the defaults">profile: {escape(settings.profile)}</span>'
        '<span class="memory" title="Weights in memory, of the budget for them"><span class="meter"><i></i></span>'
        '<span class="memory-text"></span></span><span class="spacer"></span>'
        '<a href="?view=api">API</a><button data-act="theme">Light / dark</button></header>'
    )


def health_route(runtime: Runtime, traffic: Traffic, begun: float) -> Route:
    """`GET /health`: 200 and a small JSON object while the suite serves."""

    async def health(_: HttpRequest) -> JSONResponse:
        report = runtime.cache.report()
        return JSONResponse(
            {
                "status": "ok",
                "version": product_version(),
                "profile": runtime.settings.profile,
                "seconds_up": round(time.monotonic() - begun, 1),
                "memory": {key: report[key] for key in ("bytes_in_use", "budget_bytes")},
                "requests": runtime.admission.report(),
            }
        )

    return Route("/health", health, methods=["GET"])


def product_version() -> str:
    try:
        return version("foundation-model-demo-suite")
    except PackageNotFoundError:  # run from a checkout, as is usual
        return "0.1.0"


def warm(spaces: Sequence[Space | BrokenSpace], runtime: Runtime, traffic: Traffic) -> None:
    """Computes each tab's first example, so that the first visitor sees a real answer at once."""
    context = Context(runtime, visitor="warm-up")
    for endpoint, request in list(traffic.examples.pending()):
        for space in spaces:
            if not isinstance(space, Space) or endpoint not in {e.name for e in space.endpoints}:
                continue
            try:
                for _ in space.endpoint(endpoint).run(request, context, traffic):
                    pass
            except (SuiteError, Cancelled) as error:
                log.warning("the first example of %s could not be computed: %s", endpoint, error)
                return
