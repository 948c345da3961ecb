"""Adapters for the admin: adding and removing them, and a row for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shared.checkpoints.adapter_folder import Adapter
from shared.checkpoints.adapters import is_path, is_repository
from shared.errors import InvalidInput, UnknownCheckpoint
from shared.events import Done, Event, RunInfo
from shared.serving.context import Context
from shared.serving.runtime import Runtime


@dataclass(frozen=True)
class Acted:
    """The admin's action is done."""

    said: str = ""

    def outputs(self) -> tuple[Any, ...]:
        return ()


def act(action: str, model: str, context: Context) -> Iterator[Event]:
    """Acts on the adapter of `base+name`, or adds the one in a folder or a repository. The caller is the admin."""
    runtime = context.runtime
    if action == "add adapter":
        yield from add(model, context)
        return
    name = model.partition("+")[2]
    if action == "add" or not name:
        raise InvalidInput("is no adapter: those have a + in their name", field="checkpoint")
    adapter = runtime.adapters.by_name(name)
    said = ""
    if action == "remove":
        runtime.cache.unload(adapter.id)
        runtime.adapters.remove(name)
        said = f"{adapter.name} is no longer offered; its files stay where they are"
    elif action == "unload":
        runtime.cache.unload(adapter.id)
    elif action == "unpin":
        runtime.cache.unpin(adapter.id)
    else:
        adapter = yield from context.fetched(adapter, agreed=True)
        if action == "pin":
            yield from runtime.cache.pin(adapter)
        else:
            (yield from runtime.cache.borrow(adapter)).close()
    yield Done(Acted(said), RunInfo(checkpoint=adapter.id, revision=adapter.revision, engine=adapter.engine))


def add(named: str, context: Context) -> Iterator[Event]:
    """By a folder's path or a repository's id."""
    if not is_path(named) and not is_repository(named.partition("@")[0]):
        raise UnknownCheckpoint(
            f"{named[:100]!r} is neither a folder's path (/home/me/topics, ./topics) nor an id on the Hub (user/topics)"
        )
    adapter = context.runtime.adapters.add((yield from context.adapter(named)))
    said = (
        f"{adapter.title} was added: {adapter.described} on {adapter.bases[0]}, {adapter.size}, for "
        f"{' and '.join(context.runtime.adapters.offered(adapter))}. It is in the menus of pages opened from now on"
    )
    yield Done(Acted(said), RunInfo(checkpoint=adapter.id, revision=adapter.revision, engine=adapter.engine))


def report(runtime: Runtime) -> list[dict[str, Any]]:
    """A row for each adapter, for `/models`."""
    return [
        {
            "id": adapter.id,
            "title": adapter.title,
            "base": adapter.bases[0],
            "method": adapter.method,
            "rank": adapter.rank,
            "bytes": adapter.nbytes,
            "revision": adapter.revision,
            "task": adapter.task,
            "tasks": list(runtime.adapters.able(adapter)),
            "labels": list(adapter.labels),
            "metric": adapter.metric,
            "fetched": is_here(adapter, runtime),
        }
        for adapter in runtime.adapters
    ]


def is_here(adapter: Adapter, runtime: Runtime) -> bool:
    return adapter.repository is None or runtime.files.is_on_disk(adapter.repository)
