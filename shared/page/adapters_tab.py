"""Adapters on the Models tab: which there are, what they cost, adding and removing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from shared.checkpoints.adapter_folder import Adapter
from shared.checkpoints.adapters import is_path, is_repository
from shared.errors import InvalidInput, UnknownCheckpoint
from shared.events import Done, Event, RunInfo
from shared.page import render
from shared.serving.context import Context, Runtime


@dataclass(frozen=True)
class Acted:
    """What the admin asked for is done."""

    said: str = ""

    def outputs(self) -> tuple[Any, ...]:
        return ()


def act(action: str, model: str, context: Context) -> Iterator[Event]:
    """Does it with the adapter of `base+name`, or adds the one in a folder or a repository. The caller is the admin."""
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
    return adapter.repository is None or runtime.files.on_disk(adapter.repository)


def draw(runtime: Runtime, held: Mapping[str, dict[str, Any]]) -> str:
    """The adapters, and what is wrong with folders that should be some; `held` are the cache's rows by id."""
    rows = []
    for adapter in runtime.adapters:
        row = held.get(adapter.id)
        state = row["state"] + (", pinned" if row["pinned"] else "") if row else "on disk"
        rows.append(
            (
                adapter.title,
                adapter.id,
                adapter.described,
                adapter.size,
                state if is_here(adapter, runtime) else "on the Hub",
                row["borrows"] if row else "",
                adapter.metric,
                render.short_revision(adapter.revision),
            )
        )
    columns = ["adapter", "model", "method", "size", "state", "in use by", "metric", "revision"]
    problems = [f"<b>{escape(name)}</b>: {escape(said)}" for name, said in runtime.adapters.problems().items()]
    table = render.table(columns, rows, ["size", "in use by"]) if rows else ""
    wrong = f'<div class="note">Not usable: {"; ".join(problems)}</div>' if problems else ""
    return f"<h4>Adapters</h4>{table}{wrong}" if rows or problems else ""
