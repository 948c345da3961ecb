"""Gradio on our application: imported without what it must not do, mounted, or launched on ZeroGPU; share links."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from shared.serving import zero_gpu
from shared.settings import Settings

if TYPE_CHECKING:
    from gradio import Blocks


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

    from shared.transport.gradio.sessions import keep_sessions_light

    keep_sessions_light()


def options(settings: Settings, looks: dict[str, Any]) -> dict[str, Any]:
    """What mounting and launching have in common; `looks` are theme, css and head."""
    user, _, password = settings.auth.get_secret_value().partition(":")
    return {
        "auth": (user, password) if user else None,
        "show_error": False,
        "run_history": False,
        "ssr_mode": False,
        "pwa": False,
        "enable_monitoring": False,
        "mcp_server": settings.mcp,
        "max_file_size": settings.largest_upload,
        "footer_links": ["api", "settings"],
        **looks,
    }


def mount(app: FastAPI, blocks: Blocks, settings: Settings, looks: dict[str, Any]) -> None:
    """Mounts the page at `/`, below our own routes."""
    import gradio as gr

    from shared.transport.gradio.guard import CallGuard

    blocks.max_threads = settings.threads_for_requests  # so that all wait in our queue, not in Gradio's
    blocks._queue.max_thread_count = settings.threads_for_requests
    guard = {"middleware": [Middleware(CallGuard, blocks=blocks)]}
    gr.mount_gradio_app(app, blocks, path="/", app_kwargs=guard, **options(settings, looks))
    mounted: Any = app.routes[-1]
    blocks.app = app.state.gradio = mounted.app
    # Gradio asks these whether files that a caller names must have been uploaded, and whether links to files may be
    # fetched. After mounting alone it would read any file of this machine (see tests/spaces/test_audio_genre.py).
    blocks.is_running = blocks.has_launched = True
    blocks._queue.set_server_app(mounted.app)


def launch(blocks: Blocks, settings: Settings, routes: Sequence[BaseRoute], looks: dict[str, Any]) -> str:
    """Serves by Gradio's own `launch`, which is what ZeroGPU's package starts from. Returns the address."""
    from shared.transport.gradio.guard import CallGuard

    _, url, _ = blocks.launch(
        server_name=settings.host,
        server_port=settings.port or None,
        prevent_thread_lock=True,
        quiet=True,
        max_threads=settings.threads_for_requests,
        app_kwargs={"routes": list(routes), "middleware": [Middleware(CallGuard, blocks=blocks)]},
        **options(settings, looks),
    )
    return url


def share_link(url: str, token: str) -> str:
    """A public address for some days, through Gradio's relay. Raises where the relay is out of reach."""
    from gradio.networking import setup_tunnel

    local = urlsplit(url)
    public = setup_tunnel(
        local_host=local.hostname or "127.0.0.1",
        local_port=local.port or 80,
        share_token=token,
        share_server_address=None,
        share_server_tls_certificate=None,
    )
    return urlunsplit(("https", *urlsplit(public)[1:]))
