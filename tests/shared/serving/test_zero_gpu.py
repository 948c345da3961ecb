"""Where ZeroGPU is recognised, and what travels to and from its workers. The rest: tests/test_deployed_spaces.py."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.checkpoints.catalog import Catalog
from shared.engines.protocols import NoCache
from shared.errors import Busy, InvalidInput, NeedsDownload, SuiteError
from shared.events import Done, Event, RunInfo, Running
from shared.scheduling.cache import ModelCache
from shared.serving import zero_gpu
from shared.serving.context import Context
from shared.serving.runtime import Runtime
from shared.serving.space import ROOT


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder first on the path in which `spaces` may lie."""
    monkeypatch.delitem(sys.modules, "spaces", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    return tmp_path / "spaces"


def test_zero_gpu_is_the_variable_and_the_package(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert zero_gpu.present()
    for value in ("", "0", "false"):
        monkeypatch.setenv("SPACES_ZERO_GPU", value)
        assert not zero_gpu.present()
    monkeypatch.delenv("SPACES_ZERO_GPU")
    assert not zero_gpu.present()


def test_our_folder_of_that_name_is_not_the_package(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert not zero_gpu.present()
    package.mkdir()
    assert not zero_gpu.present()
    monkeypatch.setitem(sys.modules, "spaces", None)  # pyright: ignore[reportArgumentType]
    assert not zero_gpu.present()


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("is empty", field="text"),
        Busy("the queue is full"),
        NeedsDownload("openai-community/gpt2", 500_000_000),
        SuiteError("out of luck"),
    ],
)
def test_errors_survive_the_way_from_another_process(error: SuiteError) -> None:
    read = pickle.loads(pickle.dumps(error))
    assert (type(read), str(read), vars(read)) == (type(error), str(error), vars(error))


class Engine(NoCache):
    name = "test"
    nbytes = 1000


def test_an_adopted_engine_is_lent_and_kept() -> None:
    checkpoint = next(iter(Catalog.read()))
    engine = Engine()

    def load(*_: Any) -> Any:
        raise AssertionError("it is in memory already")

    cache = ModelCache(1500, load, lambda _: 1000, idle_seconds=0)
    cache.adopt(checkpoint, engine)
    assert cache.engines() == [(checkpoint, engine)]
    with cache.hold(checkpoint) as borrowed:
        assert (borrowed.engine, borrowed.loaded) == (engine, True)
    cache.sweep()
    assert cache.bytes_held() == 1000
    cache.close()


# -- what a worker does, in this process ---------------------------------------------------------------------------

ANSWER = Done("answer", RunInfo(checkpoint="c", revision="r", engine="e"))


def worker_of(runtime: Runtime, task: Callable[[Any, Context], Iterator[Event]]) -> zero_gpu.Inherited:
    inherited = zero_gpu.Inherited({"task": task}, runtime)
    inherited._runtime = replace(runtime)
    return inherited


def test_a_worker_yields_events_and_errors_as_values(runtime: Runtime) -> None:
    def task(request: str, context: Context) -> Iterator[Event]:
        yield Running(f"{request} for {context.visitor}")
        raise InvalidInput("is no good", field="text")

    worker = worker_of(runtime, task)
    running, error = worker.run("task", "asked", "v", False, False)
    assert running == Running("asked for v")
    assert isinstance(error, InvalidInput)


def test_a_stray_exception_is_logged_there_and_told_to_nobody(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    def task(request: str, context: Context) -> Iterator[Event]:
        raise LookupError("another visitor's secret")
        yield

    [error] = worker_of(runtime, task).run("task", "asked", "v", False, False)
    assert isinstance(error, SuiteError)
    assert "secret" not in str(error)
    assert "secret" in caplog.text


def test_a_silent_task_yields_heartbeats_and_hears_that_nobody_waits(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zero_gpu, "HEARTBEAT", 0.01)
    heard = []

    def task(request: str, context: Context) -> Iterator[Event]:
        heard.append(context.cancel.wait(30))
        yield ANSWER

    events = worker_of(runtime, task).run("task", "asked", "v", False, False)
    assert [next(events), next(events)] == [None, None]
    events.close()
    for thread in threading.enumerate():
        if thread.name == "worker-task":
            thread.join(30)
    assert heard == [True]


def test_before_workers_are_open_and_for_other_tasks_it_computes_here(runtime: Runtime, context: Context) -> None:
    def task(request: str, context: Context) -> Iterator[Event]:
        yield ANSWER

    assert list(zero_gpu.Workers()("task", task, "asked", context)) == [ANSWER]
