"""Watches a run from inside the Trainer: writes where it is, obeys a stop, and notices a loss that is no number."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from finetune import processes
from finetune.run.estimate import Estimate
from finetune.run_folder import Run, State, Status
from shared.errors import SuiteError
from shared.events import Progress

LOSS_LIMIT = 1e4
"""A loss above this has diverged."""


class Stopped(Exception):
    """The run was stopped on request. It can be resumed."""


class Diverged(SuiteError):
    """The loss became infinite or no number."""


class Watch:
    """Keeps `run.status()` true."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self.run, self.progress = run, progress
        self.status = Status()
        self._ended: Exception | None = None
        self._before = 0.0
        run.write(self.status)

    def preparing(self, what: str, done: int, total: int) -> None:
        if processes.num_processes() == 1 and self.run.stop_file.exists():
            raise Stopped
        if what != self.status.what:
            self.status.what = what
            self.run.write(self.status)
        self.progress(what, done, total)

    def expect(self, model: Any, expected: Estimate) -> None:
        self.status.steps = expected.steps
        self.status.trainable, self.status.parameters = expected.trainable, expected.parameters
        self.status.seconds_left = expected.seconds
        self.run.write(self.status)

    def start(self) -> None:
        self.status.state, self.status.what = "training", ""
        self._started = time.perf_counter()
        self.run.write(self.status)

    def done(self) -> None:
        self.status.state, self.status.seconds_left = "done", 0.0
        self.run.write(self.status)

    def end(self, state: State, error: str) -> None:
        self.status.state, self.status.error = state, error
        with contextlib.suppress(OSError):  # a full disk must not hide the first error
            self.run.write(self.status)

    def raise_if_ended_early(self) -> None:
        if self._ended:
            raise self._ended

    @contextlib.contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """During training, Ctrl-C and SIGTERM stop the run after its step; before and after it, they act as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, lambda *_: self.run.stop_file.touch()) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def callback(self) -> Any:
        """What the Trainer calls at each step."""
        from transformers import TrainerCallback

        watch = self

        class Callback(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                watch.resumed_at = state.global_step

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
                watch.logged(state, control, logs or {})

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                wanted = processes.any_process(watch.run.stop_file.exists())
                if wanted and state.global_step < state.max_steps:
                    control.should_save = True
                    control.should_training_stop = True
                    watch._ended = Stopped()

        return Callback()

    resumed_at = 0

    def logged(self, state: Any, control: Any, logs: dict[str, Any]) -> None:
        status = self.status
        status.step = state.global_step
        status.steps = state.max_steps
        status.seconds = round(time.perf_counter() - self._started, 2)
        done = status.step - self.resumed_at
        if done > 0:
            status.seconds_left = round(status.seconds / done * (status.steps - status.step), 1)
        entry: dict[str, Any] = {"step": status.step, "seconds": status.seconds}
        if "eval_loss" in logs:
            measured = {"validation_loss": _number(logs["eval_loss"])}
            if "eval_accuracy" in logs:
                measured["validation_accuracy"] = _number(logs["eval_accuracy"])
            self.run.log({**entry, **measured})
        if "loss" in logs:
            loss = float(logs["loss"])
            status.loss = _number(loss)
            self.run.log({**entry, "loss": status.loss, "learning_rate": logs.get("learning_rate")})
            if not math.isfinite(loss) or loss > LOSS_LIMIT:
                control.should_training_stop = True
                control.should_save = False
                self._ended = Diverged(self._why(loss, float(logs.get("learning_rate") or 0), logs.get("grad_norm")))
        self.run.write(status)
        self.progress("training", status.step, status.steps)

    def _why(self, loss: float, rate: float, norm: Any) -> str:
        recipe = self.run.recipe
        cause = "the learning rate is too high for this method"
        if recipe.training.dtype == "bfloat16" and recipe.method.saves == "checkpoint":
            cause = "bfloat16 is too coarse, or the learning rate too high"
        return (
            f"the loss became {loss} at step {self.status.step} (learning rate {rate:.1e}, gradient norm {norm}), most "
            f"likely because {cause}. Nothing was kept of that step. Lower training.learning_rate to a third and start "
            "anew"
        )


def _number(value: Any) -> float | None:
    """JSON knows no NaN."""
    value = float(value)
    return round(value, 5) if math.isfinite(value) else None
