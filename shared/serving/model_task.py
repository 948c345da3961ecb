"""The report on the model cache, and the admin's load, unload, pin, unpin and add."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from shared.checkpoints.catalog import Checkpoint, HubSource
from shared.events import Done, Event, Loading, RunInfo
from shared.fetching import hub_models
from shared.serving import adapter_task
from shared.serving.context import Context
from shared.serving.endpoint import Endpoint
from shared.serving.requests import Request
from shared.serving.runtime import Runtime
from shared.serving.traffic import Traffic


class Nothing(Request):
    """A request without inputs."""


class Report:
    """The cache's report with the catalog beside it."""

    def __init__(self, runtime: Runtime, traffic: Traffic) -> None:
        self.content = {
            "profile": runtime.settings.profile,
            "hub": runtime.hub.report(),
            **runtime.cache.report(),
            "requests": runtime.admission.report(),
            "endpoints": traffic.report(),
            "adapters": adapter_task.report(runtime),
            "catalog": [
                {
                    "id": c.id,
                    "origin": c.profile,
                    "revision": c.revision,
                    "pinned": bool(c.revision),
                    "fetched": is_fetched(c, runtime),
                    "download_bytes": c.download_bytes,
                    "why_not": runtime.catalog.why_not(c, True),
                    "tasks": list(c.tasks),
                    "languages": list(c.languages),
                    "licence": c.licence,
                    "parameters": c.parameters,
                    "context_window": c.context_window,
                    "limits": c.limits,
                }
                for c in runtime.catalog
            ],
        }

    def outputs(self) -> tuple[Any, ...]:
        return (self.content,)


def is_fetched(checkpoint: Checkpoint, runtime: Runtime) -> bool:
    """Whether its files are on this machine."""
    if isinstance(checkpoint.source, HubSource):
        return runtime.files.is_on_disk(checkpoint)
    return (runtime.settings.weights_dir / checkpoint.folder).is_dir()


def models_endpoint(traffic: Traffic) -> Endpoint:
    """`/models`: the model cache's report."""

    def models(request: Nothing, context: Context) -> Iterator[Event]:
        """What is in memory, what is in use, and which checkpoints there are."""
        report = Report(context.runtime, traffic)
        yield Done(report, RunInfo(checkpoint="", revision="", engine=""))

    return Endpoint(models, Nothing, {"report": dict})


class OneCheckpoint(Request):
    action: Literal["load", "unload", "pin", "unpin", "add", "add adapter", "remove"]
    checkpoint: Annotated[str, Field(max_length=1000)]
    """A checkpoint's id; of an adapter `base+name`, or the folder or repository to add."""


def act(request: OneCheckpoint, context: Context) -> Iterator[Event]:
    """Adds, loads, unloads, pins or unpins a checkpoint; for the admin alone."""
    context.require_admin()
    cache = context.runtime.cache
    if request.action in ("add adapter", "remove") or "+" in request.checkpoint:
        yield from adapter_task.act(request.action, request.checkpoint.strip(), context)
        return
    if request.action == "add":
        yield Loading(request.checkpoint.strip(), "asking the Hub what it is", 0, 0)
        hub_models.add(request.checkpoint.strip(), context.catalog, context.runtime.hub)
    checkpoint = context.catalog.choose_by_id(request.checkpoint.strip())
    if request.action in ("load", "pin"):
        checkpoint = yield from context.ensure_on_disk(checkpoint, agreed=True)
    if request.action == "load":
        (yield from cache.borrow(checkpoint)).close()
    elif request.action == "pin":
        yield from cache.pin(checkpoint)
    elif request.action == "unpin":
        cache.unpin(checkpoint.id)
    elif request.action == "unload":
        cache.unload(checkpoint.id)
    yield Done(
        adapter_task.Acted(), RunInfo(checkpoint=checkpoint.id, revision=checkpoint.revision, engine=checkpoint.engine)
    )
