"""A stand-in for Hugging Face's `spaces` package, to be put on the path as `spaces/__init__.py`.

`GPU` works as the real one does on ZeroGPU, but for the GPU: a forked process runs the generator, arguments and what
it yields are pickled, an exception arrives as `gr.Error` with its class alone, closing ends the worker at its next
yield. What happened is appended to the file that STAND_IN_LOG names.
"""

from __future__ import annotations

import functools
import inspect
import json
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FORK: Any = multiprocessing.get_context("fork")
QUOTA_TEXT = "<b>You have exceeded your GPU quota</b> (60s requested vs. 12s left)."


def GPU(task: Any = None, *, duration: Any = None, size: str | None = None) -> Any:  # noqa: N802 - the name it has
    if task is None:
        return lambda function: GPU(function, duration=duration, size=size)
    if not inspect.isgeneratorfunction(task):
        raise NotImplementedError("only generators are needed here")
    note("decorated", duration=duration, function=task.__name__)

    @functools.wraps(task)
    def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
        import gradio

        if Path(os.environ["STAND_IN_LOG"]).with_name("no-quota").exists():
            raise gradio.Error(QUOTA_TEXT)
        receiver, sender = FORK.Pipe(duplex=False)
        stop = FORK.Event()
        worker = FORK.Process(
            target=work, args=(task, pickle.dumps((args, kwargs)), sender, receiver, stop), daemon=True
        )
        worker.start()
        sender.close()
        note("called", name=args[0], worker=worker.pid, visitor=visitor())
        try:
            while True:
                kind, value = pickle.loads(receiver.recv_bytes())
                if kind == "end":
                    return
                if kind == "error":
                    raise gradio.Error(value)
                yield value
        except EOFError:
            raise gradio.Error("GPU task aborted") from None
        finally:
            stop.set()
            receiver.close()  # a worker that waits for us to read finds that nobody does
            worker.join(10)
            worker.kill()
            note("ended", name=args[0], worker=worker.pid)

    return call


def work(task: Callable[..., Iterator[Any]], arguments: bytes, sender: Any, receiver: Any, stop: Any) -> None:
    receiver.close()  # the parent's end, which a fork inherits
    args, kwargs = pickle.loads(arguments)
    events = task(*args, **kwargs)
    try:
        for event in events:
            if stop.is_set():
                events.close()  # pyright: ignore[reportAttributeAccessIssue]
                break
            sender.send_bytes(pickle.dumps(("value", event)))
        sender.send_bytes(pickle.dumps(("end", None)))
    except BrokenPipeError:
        return
    except Exception as error:
        sender.send_bytes(pickle.dumps(("error", type(error).__name__)))


def visitor() -> bool:
    """Whether Gradio's context says whose request this is, as the real package asks it for the quota."""
    from gradio.context import LocalContext

    return LocalContext.request.get(None) is not None


def gradio_auto_wrap(function: Any) -> Any:
    note("gradio_auto_wrap")
    return function


def note(event: str, **more: Any) -> None:
    with Path(os.environ["STAND_IN_LOG"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": event, **more}) + "\n")
