"""`POST /stream/<endpoint>`: an endpoint for programs that speak plain HTTP, in one request and without a client.

The body is a JSON object of the endpoint's inputs. The answer is a stream of events (`text/event-stream`):

- `queued`, `loading`, `running`: what the request waits for, as JSON;
- `delta`: by output, what was added to its text since the last event;
- `partial`: the outputs so far, where one is no text or was not only added to;
- `done`: the outputs, and `run_info`;
- `error`: `error`, `field` and `status`.

A request that is refused before anything was computed is answered with the error's HTTP status and the same JSON.
Validation, limits, fairness and cancellation are those of every request: all of it runs through `Edge.events`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from shared.errors import Cancelled, SuiteError
from shared.events import Done, Event, Partial
from shared.serving.endpoint import Endpoint
from shared.transport.edge import Edge
from shared.transport.http import described, logged_in, problem, read_object, refused, unauthorized
from shared.transport.uploads import uploaded_fields, with_paths


def routes(edge: Edge, endpoints: Sequence[Endpoint]) -> list[Route]:
    by_name = {endpoint.name: endpoint for endpoint in endpoints}

    async def stream(request: HttpRequest) -> Response:
        if not logged_in(request, edge.runtime.settings):
            return unauthorized()
        endpoint = by_name.get(request.path_params["endpoint"])
        if endpoint is None:
            return problem(404, f"there is no such endpoint; there are {', '.join(by_name)}")
        # Also what makes a browser ask first whether another site's page may send it: `cors.py` answers that.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return problem(415, "the body must be JSON, and the header Content-Type must say application/json")
        values = await read_object(request)
        if isinstance(values, Response):
            return values
        try:
            values = with_paths(values, uploaded_fields(endpoint.request), edge.uploads)
            events = edge.events(endpoint, values, request)
            first = await anext(events, None)
        except SuiteError as error:
            return refused(error)
        except Cancelled:
            return problem(499, "the request was cancelled")
        return StreamingResponse(
            as_sent(endpoint, first, events),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    return [Route("/stream/{endpoint}", stream, methods=["POST"])]


async def as_sent(endpoint: Endpoint, first: Event | None, events: AsyncGenerator[Event, None]) -> AsyncIterator[str]:
    """The events as server-sent ones. What is not new is a comment, by which a lost connection is noticed."""
    names = list(endpoint.returns)
    sent: dict[str, Any] = dict.fromkeys(names)
    last_status = ""
    async with aclosing(events):
        event = first
        try:
            while event is not None:
                if isinstance(event, Done):
                    outputs = dict(zip(names, event.result.outputs(), strict=True))
                    yield message("done", {**outputs, "run_info": event.run.model_dump()})
                    return
                if isinstance(event, Partial):
                    outputs = dict(zip(names, event.result.outputs(), strict=True))
                    added = additions(sent, outputs)
                    new = message("partial", outputs) if added is None else message("delta", added) if added else ""
                    sent = outputs
                else:
                    waiting = event.as_json()
                    now = message(waiting.pop("status"), waiting)
                    new = now if now != last_status else ""
                    last_status = now
                yield new or ":\n\n"
                event = await anext(events, None)
        except SuiteError as error:
            yield message("error", described(error))
        except Cancelled:
            yield message("error", {"error": "the request was cancelled", "field": "", "status": 499})


def additions(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str] | None:
    """What was added to each text; None where something else has changed."""
    added = {}
    for name, value in now.items():
        old = before[name] if before[name] is not None else ""
        if value == before[name]:
            continue
        if not isinstance(value, str) or not isinstance(old, str) or not value.startswith(old):
            return None
        if len(value) > len(old):
            added[name] = value[len(old) :]
    return added


def message(kind: str, data: dict[str, Any]) -> str:
    # As ASCII, since readers of lines take some characters beyond it for line ends.
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


# -- what is refused -----------------------------------------------------------------------------------
