"""The suite: settings → shared parts → an application of our routes, with the page mounted on it → a running server."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute

from shared.serving import zero_gpu
from shared.serving.answers import Answers
from shared.serving.background import begin_asking_the_hub, warm
from shared.serving.batch import batch_task
from shared.serving.endpoint import Endpoint
from shared.serving.model_task import models_endpoint
from shared.serving.runtime import Runtime, start
from shared.serving.space import BrokenSpace, Space, discover, fine_tuning_offered
from shared.serving.traffic import Traffic
from shared.settings import Settings
from shared.transport import admin, cors, event_stream, health, uploads
from shared.transport.draining import Draining, RefuseWhileDraining
from shared.transport.edge import Edge
from shared.transport.gradio import mount
from shared.transport.http import with_refusals
from shared.transport.server import Server

log = logging.getLogger(__name__)

WARM_AFTER = 0.1
"""Seconds from the application's start to the first example: by then the server listens."""


@dataclass
class Suite:
    """The parts of a running suite."""

    settings: Settings
    runtime: Runtime
    traffic: Traffic
    edge: Edge
    spaces: Sequence[Space | BrokenSpace]
    endpoints: Sequence[Endpoint]
    """Of all Spaces, and `/models`."""
    blocks: Any = None
    """The page; None without one."""
    server: Server | None = None
    url: str = ""
    draining: Draining = field(init=False)
    warmed: threading.Event = field(default_factory=threading.Event)
    """Set once the first examples have been computed, as far as they can be."""

    def __post_init__(self) -> None:
        self.draining = Draining(self.settings.grace_seconds, self.traffic.in_progress, self.end)

    def end(self) -> None:
        """Ends what is being computed, and the streams of open pages."""
        self.runtime.lane.close()
        if self.blocks is not None:
            self.blocks.close(verbose=False)

    def stop(self) -> None:
        """Ends what is being computed, gives up the weights and removes temporary files."""
        self.end()
        self.runtime.cache.close()
        if not self.settings.page:  # Gradio removes its own
            shutil.rmtree(self.edge.uploads, ignore_errors=True)

    def close(self) -> None:
        """Stops serving too."""
        self.stop()
        if self.server is not None:
            self.server.close()


# -- the application ---------------------------------------------------------------------------------


def create_app(settings: Settings | None = None) -> FastAPI:
    """The suite as an ASGI application: our routes, and the page mounted below them where the settings have one.

    `app.state.suite` holds its parts. Settings left out are read from `SUITE_*` variables, so that
    `uvicorn --factory shared.suite:create_app` serves it. Raises `SuiteError` for a Space that does not exist.
    """
    suite = parts(settings or Settings())
    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.state.suite = suite
    app.router.routes.extend(with_refusals(routes(suite)))
    app.add_middleware(RefuseWhileDraining, draining=suite.draining)
    app.add_middleware(cors.CrossOrigin)
    if suite.settings.page:
        suite.blocks = page_of(suite)
        mount.mount(app, suite.blocks, suite.settings, looks())
    return app


def parts(settings: Settings) -> Suite:
    """Everything below the routes, once: shared parts, the account of traffic, one thread pool, the endpoints."""
    settings = settings.with_admin_token()
    if settings.page:
        mount.import_gradio()
    runtime = replace(start(settings), elsewhere=zero_gpu.Workers() if zero_gpu.present() else None)
    begin_asking_the_hub(runtime)
    traffic = Traffic(settings.rate_limit, answers=Answers(settings.answer_cache))
    spaces = discover(settings.spaces)
    endpoints = [endpoint for space in spaces if isinstance(space, Space) for endpoint in space.endpoints]
    edge = Edge(
        runtime,
        traffic,
        ThreadPoolExecutor(settings.threads_for_requests, "request"),
        uploads.gradio_folder() if settings.page else Path(tempfile.mkdtemp(prefix="suite-uploads-")),
    )
    return Suite(settings, runtime, traffic, edge, spaces, [*endpoints, models_endpoint(traffic)])


def routes(suite: Suite) -> list[BaseRoute]:
    """A transport adds its routes here."""
    found: list[BaseRoute] = [
        *health.routes(suite.runtime, suite.draining),
        *event_stream.routes(suite.edge, suite.endpoints),
        *uploads.routes(suite.edge),
        *admin.routes(suite.settings),
    ]
    if suite.settings.page and fine_tuning_offered(suite.settings):
        found += importlib.import_module("finetune.tab.publish_route").routes(suite.settings)
    return found


def page_of(suite: Suite) -> Any:
    """The page's Blocks. The Fine-tuning tab is there where it is allowed and `finetune/` is here."""
    from shared.page import build

    more = []
    if fine_tuning_offered(suite.settings):
        more.append(build.ExtraTab("Fine-tuning", "finetune", importlib.import_module("finetune.tab").build))
    return build.build(suite.spaces, suite.edge, suite.endpoints, more)


def looks() -> dict[str, Any]:
    from shared.page import theme

    return {"theme": theme.theme(), "css": theme.css(), "head": theme.head()}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """While the application serves: signals drain it, and the first examples are computed in the background."""
    suite: Suite = app.state.suite
    suite.draining.on_signals()
    say_who_is_admin(suite.settings)
    if suite.settings.warm_examples:
        asyncio.get_running_loop().call_later(WARM_AFTER, warming(suite).start)
    yield
    suite.stop()


# -- serving it --------------------------------------------------------------------------------------


def serve(settings: Settings, *, block: bool = True) -> Suite:
    """Serves the suite. With `block`, returns only after SIGTERM or SIGINT has drained and stopped it.

    Raises `SuiteError` where the port is taken.
    """
    if block:
        # Until the server has its own handlers. The first process of a container has no default one.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with garbage_left_alone():
        if zero_gpu.present():
            return served_by_gradio(settings, block=block)
        app = create_app(settings)
        suite: Suite = app.state.suite
        suite.server = Server(app, suite.settings, announced(suite))
        suite.url = suite.server.url
        if not block:
            suite.server.run_in_thread()
    if block:
        gc.freeze()  # what serves lives to the end, and is not to be gone through again and again meanwhile
        suite.server.run_here()
    return suite


def announced(suite: Suite) -> Callable[[str], None]:
    def say(url: str) -> None:
        print(f"Serving at {url}", flush=True)
        if suite.settings.share:
            threading.Thread(target=share, args=(suite, url), name="share-link", daemon=True).start()

    return say


def share(suite: Suite, url: str) -> None:
    try:
        print(f"Shared at {mount.share_link(url, suite.blocks.share_token)}", flush=True)
    except Exception as error:  # the relay, the network, a file of Gradio's that cannot be fetched
        print(f"There is no share link: {error}. The suite is served at {url} all the same", flush=True)


def served_by_gradio(settings: Settings, *, block: bool) -> Suite:
    """On ZeroGPU, whose package starts from a patched `Blocks.launch` alone."""
    suite = parts(settings)
    suite.blocks = page_of(suite)
    say_who_is_admin(suite.settings)
    workers: Any = suite.runtime.elsewhere
    warm(suite.spaces, suite.runtime, suite.traffic)  # while workers are closed: here, which loads what they will need
    tasks = {endpoint.name: endpoint.task for endpoint in suite.endpoints if endpoint.name != "models"}
    workers.open({**tasks, "batch": batch_task(suite.endpoints)}, suite.runtime)
    suite.url = mount.launch(suite.blocks, suite.settings, routes(suite), looks())
    print(f"Serving at {suite.url}", flush=True)
    if block:
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


def say_who_is_admin(settings: Settings) -> None:
    if not settings.everyone_is_admin or (settings.auth.get_secret_value() and fine_tuning_offered(settings)):
        print(f"Admin token: {settings.admin_token.get_secret_value()}", flush=True)


def warming(suite: Suite) -> threading.Thread:
    def compute() -> None:
        warm(suite.spaces, suite.runtime, suite.traffic)
        suite.warmed.set()

    return threading.Thread(target=compute, name="warm-examples", daemon=True)
