"""The suite: settings → shared parts → every Space as a tab → a running server."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from starlette.middleware import Middleware
from starlette.routing import Route

from shared.errors import Cancelled, NeedsDownload, SuiteError, UnknownCheckpoint
from shared.events import Event
from shared.fetching.hub_models import added
from shared.serving import zero_gpu
from shared.serving.answers import Answers
from shared.serving.batch import batch_task
from shared.serving.context import Context
from shared.serving.runtime import Runtime, start
from shared.serving.space import BrokenSpace, Space, discover, fine_tuning_offered
from shared.serving.traffic import Traffic
from shared.settings import Settings
from shared.transport.gradio.sessions import keep_sessions_light
from shared.transport.health import health_route

log = logging.getLogger(__name__)


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


def import_gradio() -> None:
    """Imports Gradio without telemetry and statistics, with light sessions, and not our `spaces/` folder for a package.

    On Spaces hardware Gradio imports Hugging Face's own `spaces` package; from this repository's root the name
    finds our folder instead, as an empty namespace package, and Gradio fails on it.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # After each request Gradio sums up the last ten thousand, in pandas, for its monitoring page, which is off here.
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**12))
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    found = importlib.util.find_spec("spaces") if "spaces" not in sys.modules else None
    if found is not None and not found.origin:
        sys.modules["spaces"] = None  # type: ignore[assignment]
    if zero_gpu.present():
        importlib.import_module("spaces")  # it wants to come before PyTorch
    import gradio  # noqa: F401 - so that it is this import that finds the names as they should be

    keep_sessions_light()


def serve(settings: Settings, *, block: bool = True) -> Suite:
    """Builds and launches the suite. With `block`, returns only after it was stopped."""
    with garbage_left_alone():
        suite = launched(settings)
    if block:
        gc.freeze()  # what serves lives to the end, and is not to be gone through again and again meanwhile
        try:
            suite.blocks.block_thread()
        finally:
            suite.close()
    return suite


@contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Starting makes 230,000 objects that stay and 400 that do not. Looking for these took 0.6 s of 4."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def launched(settings: Settings) -> Suite:
    """The suite, serving; what warms it goes on in the background."""
    import_gradio()
    from shared.page import theme
    from shared.page.build import build
    from shared.serving.model_task import models_endpoint
    from shared.transport.admin import routes
    from shared.transport.edge import Edge
    from shared.transport.event_stream import stream_route
    from shared.transport.gradio.guard import CallGuard

    settings = settings.with_admin_token()
    workers = zero_gpu.Workers() if zero_gpu.present() else None
    runtime = replace(start(settings), elsewhere=workers)
    begin_asking_the_hub(runtime)
    traffic = Traffic(settings.rate_limit, answers=Answers(settings.answer_cache))
    spaces = discover(settings.spaces)
    blocks = build(spaces, runtime, traffic)
    user, _, password = settings.auth.get_secret_value().partition(":")
    if not settings.everyone_is_admin or (user and fine_tuning_offered(settings)):
        print(f"Admin token: {settings.admin_token.get_secret_value()}", flush=True)
    endpoints = [endpoint for space in spaces if isinstance(space, Space) for endpoint in space.endpoints]
    streams = Edge(runtime, traffic, ThreadPoolExecutor(settings.threads_for_requests, "request"))
    if workers:
        warm(spaces, runtime, traffic)  # while workers are closed: here, which loads what they will need
        tasks = {endpoint.name: endpoint.task for endpoint in endpoints}
        workers.open({**tasks, "batch": batch_task(endpoints)}, runtime)
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
        max_threads=settings.threads_for_requests,  # so that all wait in our queue, not in Gradio's
        mcp_server=settings.mcp,
        max_file_size=settings.largest_upload,
        footer_links=["api", "settings"],
        theme=theme.theme(),
        css=theme.css(),
        head=theme.head(),
        app_kwargs={
            "routes": [
                health_route(runtime, traffic, time.monotonic()),
                stream_route(streams, [*endpoints, models_endpoint(traffic)]),
                *routes(settings),
                *extra_routes(settings),
            ],
            "middleware": [Middleware(CallGuard, blocks=blocks)],
        },
    )
    print(f"Serving at {url}", flush=True)
    if settings.warm_examples and not workers:
        threading.Thread(target=warm, args=(spaces, runtime, traffic), name="warm-examples", daemon=True).start()
    return Suite(settings, runtime, traffic, url, blocks)


def extra_routes(settings: Settings) -> list[Route]:
    if not fine_tuning_offered(settings):
        return []
    return [importlib.import_module("finetune.tab.publishing").route(settings)]


def begin_asking_the_hub(runtime: Runtime) -> None:
    """In the background: whether a Hub answers, and what the models named in SUITE_MODELS are."""
    asking = runtime.hub.ask()
    wanted = runtime.settings.models
    if not wanted:
        return

    def add() -> None:
        if asking:
            asking.join()
        for problem in collect_problems(added(wanted, runtime.catalog, runtime.hub)):
            log.warning("SUITE_MODELS: %s", problem)

    threading.Thread(target=add, name="add-models", daemon=True).start()


def collect_problems(adding: Generator[Event, None, list[str]]) -> list[str]:
    while True:
        try:
            next(adding)
        except StopIteration as ended:
            return ended.value


def warm(spaces: Sequence[Space | BrokenSpace], runtime: Runtime, traffic: Traffic) -> None:
    """Computes each tab's first example, so that the first visitor sees a real answer at once, of weights in memory.

    In the order of the tabs. One that fails is told in the log, and the others are computed.
    """
    context = Context(runtime, visitor="warm-up", may_download=False)
    for endpoint, request in list(traffic.answers.pending()):
        for space in spaces:
            if not isinstance(space, Space) or endpoint not in {e.name for e in space.endpoints}:
                continue
            try:
                for _ in space.endpoint(endpoint).run(request, context, traffic):
                    pass
            except (UnknownCheckpoint, NeedsDownload):
                continue  # the page says what is missing
            except SuiteError as error:
                log.warning("the first example of %s could not be computed: %s", endpoint, error)
            except Cancelled:  # the suite was closed
                return
