"""ZeroGPU, where a Space gets a GPU only while a decorated function runs, in a process that is forked for it.

Facts about Hugging Face's `spaces` package (0.51, read from its source): `spaces.GPU(duration=…)` takes generators;
arguments and what they yield are pickled; a worker inherits the memory of this process and may serve several calls,
one after the other; closing the generator stops the worker's at its next `yield`; a stray exception arrives as
`gr.Error` with nothing but its class, and so does a visitor's used-up quota, with words.

Hence: models are loaded before anything is forked; a request's task runs in the worker with a runtime of its own (a
fork has none of our threads, and locks may be held in it for ever), so there visitors share no queue and no batches;
errors travel as values; and the worker yields a heartbeat, so that Stop takes half a second.

Models compute on the processor there too: engines do not move to the GPU yet. See docs/DEPLOY.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import queue
import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from shared.errors import Busy, Cancelled, SuiteError
from shared.events import Event
from shared.serving.context import Context
from shared.serving.runtime import Runtime, start

log = logging.getLogger(__name__)

TaskFunction = Callable[[Any, Context], Iterator[Event]]

GPU_SECONDS = 60
"""How long a call may take: what Hugging Face's package assumes too. A visitor's quota must have as much left."""

HEARTBEAT = 0.5

FAILED = "something failed here, which is our fault; the log says what. Please try again"


def present() -> bool:
    """Whether this is a Space on ZeroGPU: the variable by which the package knows it, and the package itself."""
    if os.environ.get("SPACES_ZERO_GPU", "").lower() not in ("1", "t", "true"):
        return False
    found = importlib.util.find_spec("spaces")
    return found is not None and bool(found.origin)  # our own folder of that name has none


class Workers:
    """Runs task functions in ZeroGPU's processes (`shared.serving.runtime.TaskRunner`). Before `open`, in this one."""

    def __init__(self) -> None:
        self._tasks: Mapping[str, TaskFunction] = {}
        self._decorated: Any = None

    def open(self, tasks: Mapping[str, TaskFunction], runtime: Runtime) -> None:
        """From now on these tasks run in workers. Everything they need should be loaded: it stays in memory."""
        for checkpoint, _ in runtime.cache.engines():
            for _ in runtime.cache.pin(checkpoint):
                pass
        inherited = Inherited(tasks, runtime)

        def compute(name: str, request: Any, visitor: str, admin: bool, may_download: bool) -> Iterator[Any]:
            yield from inherited.run(name, request, visitor, admin, may_download)

        self._tasks = tasks
        self._decorated = importlib.import_module("spaces").GPU(duration=GPU_SECONDS)(compute)

    def __call__(self, name: str, task: TaskFunction, request: Any, context: Context) -> Iterator[Event]:
        """The task's events. Raises what the task raises, and `Busy` where ZeroGPU itself has no GPU to give."""
        if self._decorated is None or name not in self._tasks:
            yield from task(request, context)
            return
        from gradio import Error

        call = self._decorated(name, request, context.visitor, context.admin, context.may_download)
        try:
            with closing(call):
                for item in call:
                    context.check()
                    if isinstance(item, (SuiteError, Cancelled)):
                        raise item
                    if item is not None:
                        yield item
        except Error as error:
            raise Busy(f"no GPU for this request: {re.sub(r'<[^>]*>', '', str(error.message))}") from error


class Inherited:
    """The tasks and the loaded engines that a worker has from its parent process."""

    def __init__(self, tasks: Mapping[str, TaskFunction], runtime: Runtime) -> None:
        self._tasks = tasks
        self._parent = runtime
        self._engines = runtime.cache.engines()
        self._runtime: Runtime | None = None

    def run(
        self, name: str, request: Any, visitor: str, admin: bool, may_download: bool
    ) -> Generator[Event | SuiteError | Cancelled | None, None, None]:
        """The task's events, errors as values, and None where half a second brought nothing. All can be pickled."""
        context = Context(self.runtime(), visitor, admin, may_download=may_download)
        events: queue.Queue[Any] = queue.Queue()
        end = object()

        def fill() -> None:
            try:
                for event in self._tasks[name](request, context):
                    events.put(event)
            except (SuiteError, Cancelled) as error:
                events.put(error.with_traceback(None))
            except Exception:
                log.exception("/%s failed in a worker", name)
                events.put(SuiteError(FAILED))
            events.put(end)

        threading.Thread(target=fill, name=f"worker-{name}", daemon=True).start()
        try:
            while True:
                try:
                    item = events.get(timeout=HEARTBEAT)
                except queue.Empty:
                    yield None
                    continue
                if item is end:
                    return
                yield item
        finally:
            context.cancel.set()

    def runtime(self) -> Runtime:
        """Made at a worker's first call: locks and threads of its own, the engines of its parent."""
        if self._runtime is None:
            started = start(self._parent.settings)
            self._runtime = replace(started, catalog=self._parent.catalog, adapters=self._parent.adapters)
            for checkpoint, engine in self._engines:
                self._runtime.cache.adopt(checkpoint, engine)
        return self._runtime
