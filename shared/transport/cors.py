"""Which other sites' pages may read our answers: those of any site, unless the suite was opened on this machine alone.

A page of another site that a visitor has open must not use a suite on their own machine. Gradio has the same rule for
its own routes (`gradio.route_utils.CustomCORSMiddleware`); this one is for ours, with Gradio mounted or without.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

THIS_MACHINE = {"localhost", "127.0.0.1", "0.0.0.0"}
METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


class CrossOrigin:
    """ASGI middleware: answers a browser's preflight request, and says in each answer whose page may read it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        if origin is None:
            await self._app(scope, receive, send)
            return
        allowed = {"Access-Control-Allow-Credentials": "true"}
        if may_read(origin, headers.get("host", "")):
            allowed |= {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            allowed |= {"Access-Control-Allow-Methods": METHODS, "Access-Control-Max-Age": "600"}
            if "access-control-request-headers" in headers:
                allowed["Access-Control-Allow-Headers"] = headers["access-control-request-headers"]
            await PlainTextResponse("OK", headers=allowed)(scope, receive, send)
            return

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(allowed)
            await send(message)

        await self._app(scope, receive, send_allowed)


def may_read(origin: str, host: str) -> bool:
    """Whether a page from `origin` may read what a suite opened as `host` answers."""
    return (urlsplit(f"//{host}").hostname not in THIS_MACHINE) or urlsplit(origin).hostname in THIS_MACHINE
