"""Who may load, unload and pin: on a machine of one's own everybody, elsewhere whoever sends the token.

The token comes as the header `X-Suite-Admin` or as the cookie that `POST /admin` sets. It is never a
component's value, because those reach the browser's history and the server's event log.
"""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shared.errors import Forbidden
from shared.serving.context import SIGN_IN
from shared.settings import Settings

COOKIE = "suite_admin"
HEADER = "x-suite-admin"
LOCAL_NAMES = {"localhost", "127.0.0.1", "[::1]", "::1"}


def is_admin(settings: Settings, request: Any) -> bool:
    """Whether the request (Gradio's or Starlette's; None for calls within the process) is the admin's."""
    if request is None:
        return False
    headers = getattr(request, "headers", None) or {}
    if settings.everyone_is_admin and (settings.admin or _names_this_machine(headers)):
        return True
    return shows_token(settings, request)


def shows_token(settings: Settings, request: Any) -> bool:
    """Whether the request carries the admin token."""
    token = settings.admin_token.get_secret_value()
    headers, cookies = getattr(request, "headers", None) or {}, getattr(request, "cookies", None) or {}
    given = headers.get(HEADER) or cookies.get(COOKIE) or ""
    return bool(token) and hmac.compare_digest(given.encode(), token.encode())


def _names_this_machine(headers: Any) -> bool:
    """Whether the page was opened under a local name, not another site's that resolves to us (DNS rebinding)."""
    if any(name in headers for name in ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")):
        return False  # a proxy on this machine speaks for somebody elsewhere
    origin = headers.get("origin")
    if origin and (urlsplit(origin).hostname or "") not in {name.strip("[]") for name in LOCAL_NAMES}:
        return False  # a page of another site, or this one's through a proxy that does not say so
    host = headers.get("host", "")
    return (host.rsplit(":", 1)[0] if not host.endswith("]") else host) in LOCAL_NAMES


def require_admin(settings: Settings, request: Any) -> None:
    """Raises `Forbidden` where the request is not the admin's, for what is no task function."""
    if not is_admin(settings, request):
        raise Forbidden(f"only the admin may {SIGN_IN}")


def routes(settings: Settings) -> list[Route]:
    """`POST /admin` with the token as its body signs in; an empty body signs out."""

    async def sign_in(request: HttpRequest) -> Response:
        given = b""
        async for part in request.stream():
            given += part
            if len(given) > 1000:
                return JSONResponse({"error": "that is not the admin token"}, status_code=403)
        body = given.decode("utf-8", "replace").strip()
        token = settings.admin_token.get_secret_value()
        if not body:
            response = JSONResponse({"admin": False})
            response.delete_cookie(COOKIE)
            return response
        if not token or not hmac.compare_digest(body.encode(), token.encode()):
            return JSONResponse({"error": "that is not the admin token"}, status_code=403)
        response = JSONResponse({"admin": True})
        secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, max_age=86_400)
        return response

    return [Route("/admin", sign_in, methods=["POST"])]
