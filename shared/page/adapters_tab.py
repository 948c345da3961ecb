"""Adapters on the Models tab: which there are, what they cost, adding and removing."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from shared.page import render
from shared.serving.adapter_task import is_here
from shared.serving.runtime import Runtime


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
