"""`GET /health`, `/health/live` and `/health/ready`, for people, the page, and whatever starts and stops the suite."""

from __future__ import annotations

import time

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from shared.engines.choice import slower_here
from shared.serving.runtime import Runtime
from shared.transport.draining import Draining
from shared.version import product_version


def slower(runtime: Runtime) -> dict[str, list[str]]:
    """By each reason, the checkpoints in memory that run on a reference engine, though the catalog names a fast one."""
    rows = runtime.cache.report()["checkpoints"]
    loaded = {row["checkpoint"] for row in rows if row["state"] == "loaded"}  # whose engines need no import any more
    return slower_here([c for c in runtime.catalog if c.id in loaded], runtime.settings)


def routes(runtime: Runtime, draining: Draining) -> list[Route]:
    """Live: the process answers; restart it where this fails. Ready: it takes requests; 503 once it is ending."""
    begun = time.monotonic()

    async def health(_: HttpRequest) -> JSONResponse:
        """What the suite is and holds: 200 as long as it serves."""
        report = runtime.cache.report()
        return JSONResponse(
            {
                "status": "ok",
                "version": product_version(),
                "profile": runtime.settings.profile,
                "hub": runtime.hub.report(),
                "seconds_up": round(time.monotonic() - begun, 1),
                "slower": slower(runtime),
                "memory": {key: report[key] for key in ("bytes_in_use", "budget_bytes")},
                "requests": runtime.admission.report(),
            }
        )

    async def live(_: HttpRequest) -> JSONResponse:
        return JSONResponse({"status": "live"})

    async def ready(_: HttpRequest) -> JSONResponse:
        if draining.begun:
            return JSONResponse({"status": "draining"}, status_code=503)
        return JSONResponse({"status": "ready"})

    return [
        Route("/health", health, methods=["GET"]),
        Route("/health/live", live, methods=["GET"]),
        Route("/health/ready", ready, methods=["GET"]),
    ]
