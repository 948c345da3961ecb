"""`GET /health`."""

from __future__ import annotations

import time

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from shared.serving.runtime import Runtime
from shared.serving.traffic import Traffic
from shared.version import product_version


def health_route(runtime: Runtime, traffic: Traffic, begun: float) -> Route:
    """`GET /health`: 200 and a small JSON object while the suite serves."""

    async def health(_: HttpRequest) -> JSONResponse:
        report = runtime.cache.report()
        return JSONResponse(
            {
                "status": "ok",
                "version": product_version(),
                "profile": runtime.settings.profile,
                "hub": runtime.hub.report(),
                "seconds_up": round(time.monotonic() - begun, 1),
                "memory": {key: report[key] for key in ("bytes_in_use", "budget_bytes")},
                "requests": runtime.admission.report(),
            }
        )

    return Route("/health", health, methods=["GET"])
