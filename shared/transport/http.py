"""What our own HTTP routes share: who is logged in, JSON bodies, errors as JSON."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from shared.errors import SuiteError
from shared.settings import Settings

LONGEST_BODY = 16 * 2**20
"""Bytes read of a call before it is refused; the texts in it have limits of their own."""
LONGEST_PASSWORD = 1000
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}


def logged_in(request: HttpRequest, settings: Settings) -> bool:
    """By the cookie of Gradio's own log-in, as a page has it, or by HTTP's Basic authentication."""
    expected = settings.auth.get_secret_value()
    if not expected:
        return True
    page = getattr(request.app.state, "gradio", request.app)  # mounted on ours, or ours on it (ZeroGPU)
    if hasattr(page, "cookie_id"):
        for name in (f"access-token-{page.cookie_id}", f"access-token-unsecure-{page.cookie_id}"):
            token = request.cookies.get(name)
            if token and page.tokens.get(token):
                return True
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic" or len(given) > LONGEST_PASSWORD:
        return False
    try:
        return hmac.compare_digest(base64.b64decode(given, validate=True), expected.encode())
    except (binascii.Error, ValueError):
        return False


def unauthorized() -> Response:
    return problem(401, "user and password are needed", headers={"WWW-Authenticate": 'Basic realm="suite"'})


async def read_object(request: HttpRequest) -> dict[str, Any] | Response:
    """The body's JSON object, or the answer that says what is wrong with it."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            return problem(413, f"the body is larger than {LONGEST_BODY:,} bytes")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        return problem(400, "the body is not JSON")
    return values if isinstance(values, dict) else problem(400, "the body must be a JSON object of inputs by name")


def with_refusals(routes: Sequence[BaseRoute]) -> list[BaseRoute]:
    """The routes, and 405 for their paths by another method, which the page that is mounted at `/` would answer."""
    refusals: list[BaseRoute] = []
    for route in routes:
        if isinstance(route, Route) and route.methods:
            allowed = ", ".join(sorted(route.methods))

            async def refuse(_: HttpRequest, allowed: str = allowed) -> Response:
                return problem(405, f"this address takes {allowed}", headers={"Allow": allowed})

            others = METHODS - route.methods
            refusals.append(Route(route.path, refuse, methods=sorted(others)))
    return [*routes, *refusals]


def refused(error: SuiteError) -> Response:
    # Not Starlette's JSON: a field's name is the caller's, and may hold what UTF-8 cannot.
    return Response(json.dumps(described(error)), error.status, media_type="application/json")


def described(error: SuiteError) -> dict[str, Any]:
    return {"error": str(error), "field": error.field, "status": error.status}


def problem(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text, "field": "", "status": status}, status_code=status, headers=headers)
