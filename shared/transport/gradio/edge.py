"""From task functions to Gradio: async generators that stream events and stop when the visitor leaves.

A task function runs in a thread and yields events; the async generator here shows the newest one, at most twenty times
a second: the first part of a result at once, the result itself at once, and what a request waits for only once there
has been time to read it. A quick request is therefore one message.

Gradio closes the generator on Stop, on `job.cancel()` and on a lost connection, which sets the request's cancel signal,
so the computation ends within one step. It looks for a lost connection only between two yields, hence the heartbeat.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import types
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import gradio as gr
from gradio.utils import get_upload_folder
from pydantic import BaseModel

from shared.errors import Cancelled, InvalidInput, SuiteError
from shared.events import Done, Event, Partial, Running
from shared.serving.context import Context, Runtime
from shared.serving.endpoint import Endpoint, Traffic
from shared.serving.requests import Request, Uploaded
from shared.transport.admin import is_admin

HEARTBEAT = 0.5
"""Seconds after which the last event is yielded again when nothing new has come."""

SHORTEST_SHOW = 0.05
"""Seconds that what is shown stays before the next partial result takes its place."""

UNTOLD = 0.3
"""Seconds that a request may wait before it is said what for."""


@dataclass(frozen=True)
class Edge:
    """What Gradio's callbacks need: the shared parts, the account of traffic, and threads for task functions."""

    runtime: Runtime
    traffic: Traffic
    threads: ThreadPoolExecutor

    def context(self, request: gr.Request | None, *, may_download: bool | None = None) -> Context:
        """Whose request this is. A session's name is its own choice, so the address comes first in the key.

        `may_download` is as in `Context`, but in the hub profile nobody is asked first.
        """
        client = getattr(getattr(request, "client", None), "host", "local") or "local"
        session = getattr(request, "session_hash", "") or ""
        admin = is_admin(self.runtime.settings, request)
        if may_download is False and self.runtime.settings.profile == "hub":
            may_download = None  # who chose this profile agreed for its visitors
        return Context(self.runtime, f"{client}/{session}", admin, may_download=may_download)

    async def events(
        self,
        endpoint: Endpoint,
        values: dict[str, Any],
        request: gr.Request | None,
        *,
        may_download: bool | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The endpoint's events, partial results skipped where newer ones are there. Ends with `Done` or an error.

        `may_download` is as in `context`.
        """
        context = self.context(request, may_download=may_download)
        async with aclosing(self.pump(endpoint.run(values, context, self.traffic), context)) as events:
            async for event in events:
                yield event

    async def pump(self, events: Iterator[Event], context: Context) -> AsyncGenerator[Event, None]:
        """Iterates in a thread; see the module's docstring."""
        loop = asyncio.get_running_loop()
        mailbox = Mailbox(loop)
        # With Gradio's own context: on ZeroGPU it says on whose account a GPU is taken.
        self.threads.submit(copy_context().run, mailbox.fill, events)
        last: Event | None = None
        shown = begun = loop.time()
        try:
            while True:
                # A word even before the first event: Gradio notices a lost connection only between two yields.
                heartbeat = shown + HEARTBEAT
                partial_from = shown + SHORTEST_SHOW if isinstance(last, Partial) else begun
                waiting_from = max(begun + UNTOLD, shown + SHORTEST_SHOW)
                event = await mailbox.take(partial_from, waiting_from, heartbeat)
                if event is None:
                    if mailbox.ended:
                        return
                    event = last or Running()
                last, shown = event, loop.time()
                yield event
                if isinstance(event, Done):
                    return
        finally:
            context.cancel.set()


class Mailbox:
    """Hands events from a thread to the event loop, the newest alone: a slow reader never holds up the model.

    The loop is woken only for what it would show at once, not for each token.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._newest: Event | None = None
        self._error: BaseException | None = None
        self.ended = False
        self._sleeper: asyncio.Future[None] | None = None
        self._wakes = 0
        """From which urgency on an event wakes the loop."""

    def fill(self, events: Iterator[Event]) -> None:
        """Runs in the thread, until the events end or the request is cancelled."""
        try:
            for event in events:
                with self._lock:
                    self._newest = event
                    sleeper = self._sleeper if urgency(event) >= self._wakes else None
                self._wake(sleeper)
        except BaseException as error:
            self._error = error
        with self._lock:
            self.ended = True
            sleeper = self._sleeper
        self._wake(sleeper)

    def _wake(self, sleeper: asyncio.Future[None] | None) -> None:
        if sleeper is not None:
            try:
                self._loop.call_soon_threadsafe(wake, sleeper)
            except RuntimeError:
                return  # the server is shutting down and its loop is closed

    async def take(self, partial_from: float, waiting_from: float, until: float) -> Event | None:
        """The newest event: `Done` at once, the others not before these times of the loop's clock.

        None when there is none `until` then, or when they have ended. Raises what the task raised.
        """
        due = (waiting_from, partial_from, 0.0)
        while True:
            with self._lock:
                now = self._loop.time()
                event = self._newest
                rank = urgency(event) if event is not None else -1
                if event is not None and (due[rank] <= now or (self.ended and rank > 0)):
                    self._newest = None
                    return event
                if self.ended:
                    break
                if now >= until:
                    return None
                # An event that would not be shown at once, or not before the one that is here, need not wake anybody.
                self._wakes = next(r for r in range(rank + 1, len(due)) if due[r] <= now)
                sleeper = self._sleeper = self._loop.create_future()
            timer = self._loop.call_at(min([until, *(time for time in due if time > now)]), wake, sleeper)
            try:
                await sleeper
            finally:
                timer.cancel()
                self._sleeper = None
        if self._error is not None:
            raise self._error
        return None


def urgency(event: Event) -> int:
    """0 for what a request waits for, 1 for a part of its result, 2 for the result."""
    return 2 if isinstance(event, Done) else int(isinstance(event, Partial))


def wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


def api_function(endpoint: Endpoint, edge: Edge) -> Any:
    """The endpoint as a typed async generator for `gr.api`: its parameters are the request model's fields.

    Yields the outputs so far and RunInfo, which is a status (`queued`, `loading`, `running`) until the end.
    """

    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[tuple[Any, ...], None]:
        values = dict(zip(names, args, strict=False)) | kwargs
        request = values.pop("request", None)
        outputs: tuple[Any, ...] = (None,) * len(endpoint.returns)
        try:
            async for event in edge.events(endpoint, with_paths(values, uploads), request):
                if isinstance(event, (Partial, Done)):
                    outputs = event.result.outputs()
                status = event.run.model_dump() if isinstance(event, Done) else event.as_json()
                yield (*outputs, status)
        except Cancelled:
            raise gr.Error("the request was cancelled", print_exception=False) from None
        except SuiteError as error:
            raise gr.Error(str(error), print_exception=False, title=type(error).__name__) from None

    uploads = uploaded_fields(endpoint.request)
    parameters, hints = [], {}
    for name, field in endpoint.request.model_fields.items():
        hints[name] = gr.FileData if name in uploads else json_type(field.annotation)
        default = inspect.Parameter.empty if field.is_required() else plain(field.default)
        parameters.append(inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default))
    # A parameter without a default must not follow one with a default; only the first field has none.
    parameters.append(inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None))
    hints["request"] = gr.Request
    names = [parameter.name for parameter in parameters]
    returns = tuple[(*endpoint.returns.values(), dict)]
    signature = inspect.Signature(parameters, return_annotation=returns)
    call.__name__ = call.__qualname__ = endpoint.name
    call.__doc__ = endpoint.summary
    call.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    call.__annotations__ = {**hints, "return": returns}
    return call


def uploaded_fields(model: type[Request]) -> set[str]:
    """Names of the fields that are files."""
    return {name for name, field in model.model_fields.items() if any(isinstance(m, Uploaded) for m in field.metadata)}


def with_paths(values: dict[str, Any], uploads: set[str]) -> dict[str, Any]:
    """The values with the paths of uploaded files in the place of what describes them. Raises `InvalidInput`."""
    return values | {name: uploaded_path(values.get(name), name) for name in uploads}


def uploaded_path(value: Any, field: str) -> str:
    """The path of a file that the caller uploaded. Raises `InvalidInput` for any other: a caller names no path here."""
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidInput(
            "must be a file: send handle_file(...) with gradio_client, else upload it first and send its path as "
            '{"path": ..., "meta": {"_type": "gradio.FileData"}}',
            field=field,
        )
    found = Path(path).resolve()
    if not found.is_relative_to(Path(get_upload_folder()).resolve()):
        raise InvalidInput("was not uploaded; upload it first", field=field)
    return str(found)


def json_type(annotation: Any) -> Any:
    """The JSON type of a field for the API's schema: constraints dropped, models as objects, tuples as lists."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return json_type(get_args(annotation)[0])
    if origin is Literal or annotation in (str, int, float, bool):
        return annotation
    if origin in (Union, types.UnionType):
        return annotation
    if origin in (tuple, list):
        return list
    if origin is dict or (inspect.isclass(annotation) and issubclass(annotation, BaseModel)):
        return dict
    return annotation


def plain(default: Any) -> Any:
    """A field's default as JSON has it."""
    return list(default) if isinstance(default, tuple) else default
