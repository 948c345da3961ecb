"""Who may have a checkpoint fetched: who agreed, who names it, in the hub profile all visitors; a warm-up never."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shared.errors import NeedsDownload
from shared.serving.context import Context
from shared.serving.runtime import Runtime, start
from shared.serving.traffic import Traffic
from shared.settings import Profile, Settings
from shared.transport.edge import Edge

GPT2 = "openai-community/gpt2"


class Fetched(Exception):
    """In place of a download."""


def fetch(checkpoint: object) -> Iterator[Any]:
    raise Fetched


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[Profile], Runtime]]:
    """`started(profile)`: shared parts with an answering Hub and nothing on the disk."""
    running: list[Runtime] = []

    def started(profile: Profile) -> Runtime:
        runtime = start(Settings(profile=profile, cache_dir=tmp_path))
        running.append(runtime)
        runtime.catalog.why_not = lambda checkpoint, named: ""
        files: Any = SimpleNamespace(is_on_disk=lambda checkpoint: False, ensure=fetch)
        return replace(runtime, files=files)

    yield started
    for runtime in running:
        runtime.lane.close()
        runtime.cache.close()


def program(edge: Edge) -> Context:
    return edge.context(None)


def page(edge: Edge) -> Context:
    return edge.context(None, may_download=False)


def page_agreed(edge: Edge) -> Context:
    return edge.context(None, may_download=True)


def warm_up(edge: Edge) -> Context:
    return Context(edge.runtime, "warm-up", may_download=False)


@pytest.mark.parametrize(
    ("profile", "who", "model", "fetches"),
    [
        ("auto", program, GPT2, True),
        ("auto", page, GPT2, False),
        ("auto", page_agreed, GPT2, True),
        ("auto", warm_up, GPT2, False),
        ("hub", program, GPT2, True),
        ("hub", program, "", True),
        ("hub", page, "", True),
        ("hub", page, GPT2, True),
        ("hub", page_agreed, "", True),
        ("hub", warm_up, "", False),
        ("hub", warm_up, GPT2, False),
    ],
)
def test_who_has_a_checkpoint_fetched(
    started: Callable[[Profile], Runtime], profile: Profile, who: Callable[[Edge], Context], model: str, fetches: bool
) -> None:
    context = who(Edge(started(profile), Traffic(), cast(Any, None), Path()))
    with pytest.raises(Fetched if fetches else NeedsDownload):
        list(context.borrow(model, "text-generation"))


def test_a_program_that_names_nothing_has_nothing_fetched(started: Callable[[Profile], Runtime]) -> None:
    context = program(Edge(started("auto"), Traffic(), cast(Any, None), Path()))
    with pytest.raises(NeedsDownload, match="bert-base-uncased"):  # which no embedded checkpoint stands in for
        list(context.borrow("", "fill-mask"))
