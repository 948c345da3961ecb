"""Stop reaches what runs in the session in which it is pressed, from beginning to end, and nothing else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from shared.errors import Cancelled
from shared.page.stop import Stop


@pytest.fixture
def stop() -> Stop:
    with gr.Blocks():
        return Stop("form")


def visitor(session: str) -> Any:
    return SimpleNamespace(session_hash=session)


def test_all_that_runs_in_the_session_ends(stop: Stop) -> None:
    with stop.run(visitor("a")) as first, stop.run(visitor("a")) as second, stop.run(visitor("b")) as other:
        first.check()
        assert stop.end(visitor("a")) == {first, second}
        for run in (first, second):
            with pytest.raises(Cancelled):
                run.check()
        other.check()


def test_what_is_over_is_not_waited_for_and_the_next_run_is_not_ended(stop: Stop) -> None:
    with stop.run(visitor("a")) as run:
        stop.end(visitor("a"))
        assert not run.over.is_set()
    assert run.over.is_set()
    assert stop.end(visitor("a")) == set()
    with stop.run(visitor("a")) as again:
        again.check()


def test_one_end_of_two_leaves_the_other_within_reach(stop: Stop) -> None:
    with stop.run(visitor("a")) as lasting:
        with stop.run(visitor("a")):
            pass
        assert stop.end(visitor("a")) == {lasting}


def test_who_discards_what_was_shown_comes_after_it(stop: Stop) -> None:
    said: list[str] = []

    async def answer() -> None:
        with stop.run(visitor("a")) as run:
            try:
                while True:
                    run.check()
                    await asyncio.sleep(0)
            except Cancelled:
                await asyncio.sleep(0)
                said.append("nothing" if run.discarded else "the last word")

    async def both() -> None:
        answering = asyncio.create_task(answer())
        await asyncio.sleep(0)
        await stop.ended(visitor("a"))
        said.append("a new chat")
        await answering

    asyncio.run(both())
    assert said == ["nothing", "a new chat"]
