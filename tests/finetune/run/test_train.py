"""A run from start to end: its files, stopping and going on, and what ends it early."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from safetensors.torch import load_file

from finetune.recipe import read_recipe
from finetune.run.failures import OutOfMemory, as_suite_error
from finetune.run.prepared import prepare
from finetune.run.train import train
from finetune.run.watch import Diverged, Stopped, Watch
from finetune.run_folder import Run, Status, run_of
from shared.errors import Busy, SuiteError
from shared.serving.runtime import Runtime
from tests.finetune.conftest import MakeRecipe

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
MOMENT = 20261122
"""Seed of the step at which a run is killed."""


def test_a_run_leaves_a_result_and_what_made_it(make_recipe: MakeRecipe, parts: Runtime) -> None:
    recipe = make_recipe()
    run = run_of(recipe, parts.settings)
    seen: list[tuple[str, int, int]] = []
    _, expected = train(recipe, run, parts, progress=lambda *step: seen.append(step))

    assert {path.name for path in run.result.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "suite_adapter.json",
        "training.json",
        "recipe.yaml",
        "loss.json",
    }
    assert not run.checkpoints.exists()
    assert not (run.folder / ".result.part").exists()
    assert read_recipe(run.result / "recipe.yaml") == recipe
    facts = json.loads((run.result / "training.json").read_text())
    assert facts["base"] == {"checkpoint": "all-MiniLM-L6-v2", "revision": "1110a243"}
    assert facts["versions"]["peft"]
    assert facts["rows"] == {"train": 31, "validation": 5, "test": 12, "read": 48, "drawn": 48, "groups": 48}
    status = run.status()
    assert (status.state, status.step, status.steps) == ("done", 6, 6)
    assert status.trainable == expected.trainable
    assert ("training", 6, 6) in seen
    entry = json.loads((run.result / "suite_adapter.json").read_text())
    assert entry["checkpoint"] == "all-MiniLM-L6-v2"
    assert entry["labels"] == sorted(entry["labels"])
    said = json.loads((run.result / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert not said.startswith("/")


def test_the_estimate_changes_nothing(make_recipe: MakeRecipe, parts: Runtime) -> None:
    import torch

    from finetune.run.estimate import estimate

    prepared = prepare(make_recipe(), parts, lambda *_: None)
    before = {name: weight.detach().clone() for name, weight in prepared.model.named_parameters()}
    chance = torch.get_rng_state()
    found = estimate(prepared)
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(weight, before[name]) for name, weight in prepared.model.named_parameters())
    assert all(weight.grad is None for weight in prepared.model.parameters())
    assert found.steps == 6
    assert found.seconds > 0
    assert found.memory > 1e8


def weights(run: Run) -> dict[str, Any]:
    return load_file(run.result / "adapter_model.safetensors")


def test_a_stopped_run_goes_on_to_the_same_weights(make_recipe: MakeRecipe, parts: Runtime) -> None:
    recipe = make_recipe(method={"name": "lora", "dropout": 0.1})
    whole, stopped = Run(parts.settings.cache_dir / "whole"), Run(parts.settings.cache_dir / "stopped")
    train(recipe, whole, parts)

    def stop(what: str, done: int, total: int) -> None:
        if what == "training" and done == 3:
            stopped.stop_file.touch()

    with pytest.raises(Stopped):
        train(recipe, stopped, parts, progress=stop)
    assert stopped.status().state == "stopped"
    assert not stopped.result.exists()
    train(recipe, stopped, parts, resume=True)
    assert stopped.status().state == "done"
    one, other = weights(whole), weights(stopped)
    assert one.keys() == other.keys()
    for name in one:
        # Both runs compute the same numbers in the same order, dropout included.
        assert (one[name] - other[name]).abs().max() < 1e-5
    assert [e["step"] for e in stopped.entries() if "loss" in e] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_to_the_same_model(
    make_recipe: MakeRecipe, parts: Runtime, tmp_path: Path
) -> None:
    recipe = make_recipe(**{"training.max_steps": 12, "training.evaluations": 6})
    whole = Run(parts.settings.cache_dir / "whole")
    train(recipe, whole, parts)
    path = tmp_path / "tiny.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    environment = {**os.environ, "SUITE_CACHE_DIR": str(parts.settings.cache_dir)}
    command = [sys.executable, "-m", "finetune", str(path), "--skip-evaluation"]
    run = run_of(recipe, parts.settings)
    moment = random.Random(MOMENT)
    step, later = moment.randrange(1, 10), moment.uniform(0, 0.1)
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        # Before a checkpoint, while one is written, or after; the status file is not there yet at first.
        while run.status().step < step and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(later)
        process.send_signal(signal.SIGKILL)
    assert not run.alive()
    assert not run.result.exists()
    assert step <= run.status().step < 12
    train(recipe, run, parts, resume=True)
    assert run.status().state == "done"
    assert validation_losses(run).keys() == validation_losses(whole).keys()
    for at, loss in validation_losses(whole).items():
        assert validation_losses(run)[at] == pytest.approx(loss, abs=0.02)
    for name, weight in weights(whole).items():
        assert (weights(run)[name] - weight).abs().max() < 1e-2


def validation_losses(run: Run) -> dict[int, float]:
    return {entry["step"]: entry["validation_loss"] for entry in run.entries() if "validation_loss" in entry}


def test_a_run_that_diverges_stops_and_says_where(
    make_recipe: MakeRecipe, parts: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.run.watch.LOSS_LIMIT", 6.0)
    recipe = make_recipe(method={"name": "full"}, **{"training.learning_rate": 1.0, "training.max_steps": 30})
    run = run_of(recipe, parts.settings)
    with pytest.raises(Diverged, match=r"at step \d+ .*learning rate"):
        train(recipe, run, parts)
    assert run.status().state == "failed"
    assert "Lower training.learning_rate" in run.status().error
    assert run.status().step < 30
    assert not run.result.exists()


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(loss: float, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    from transformers import TrainerControl, TrainerState

    run = Run(tmp_path)
    (tmp_path / "recipe.yaml").write_text(make_recipe().to_yaml())
    watch, control = Watch(run, lambda *_: None), TrainerControl()
    watch.start()
    watch.logged(TrainerState(global_step=7, max_steps=9), control, {"loss": loss, "learning_rate": 0.1})
    assert control.should_training_stop
    with pytest.raises(Diverged, match="at step 7"):
        watch.raise_if_ended_early()
    assert run.status().loss is None


def test_ctrl_c_stops_a_training_run_and_nothing_else(tmp_path: Path) -> None:
    watch, usual = Watch(Run(tmp_path), lambda *_: None), signal.getsignal(signal.SIGINT)
    with watch.stopped_by_signals():
        os.kill(os.getpid(), signal.SIGINT)
    assert watch.run.stop_file.exists()
    assert signal.getsignal(signal.SIGINT) is usual


def test_a_step_costs_the_same_in_one_batch_or_in_several(make_recipe: MakeRecipe, parts: Runtime) -> None:
    found = []
    for size, count in ((8, 1), (2, 4)):
        settings = {"training.batch_size": size, "training.gradient_accumulation": count, "training.max_steps": 1}
        recipe = make_recipe(**settings, **{"training.evaluations": 1})
        run = run_of(recipe, parts.settings)
        train(recipe, run, parts)
        found.append(run.entries()[0]["loss"])
    assert found[1] == pytest.approx(found[0], abs=0.1)  # dropout draws anew


def test_only_one_process_trains_a_run(make_recipe: MakeRecipe, parts: Runtime) -> None:
    recipe = make_recipe()
    run = run_of(recipe, parts.settings)
    run.folder.mkdir(parents=True)
    with FileLock(run.folder / "lock"), pytest.raises(Busy, match="trained already"):  # as another process holds it
        train(recipe, run, parts)


@pytest.mark.parametrize("room", [300_000, 1_200_000], ids=["of the weights", "of the optimizer"])
def test_a_full_disk_is_said(room: int, make_recipe: MakeRecipe, parts: Runtime) -> None:
    """No file may grow beyond `room`, which the operating system refuses as it refuses a full disk."""
    resource = pytest.importorskip("resource", reason="this system has no limits for files")
    recipe = make_recipe(**{"training.max_steps": 4, "training.evaluations": 2})
    run = run_of(recipe, parts.settings)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(SuiteError, match=r"while writing to the run's folder .*MB are free there.*--resume"):
            train(recipe, run, parts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    status = run.status()
    assert (status.state, status.step) == ("failed", 2)
    assert "--resume" in status.error
    assert not run.result.exists()
    train(recipe, run, parts, resume=True)  # what was left half-written is not taken for a checkpoint
    assert run.status().state == "done"


@pytest.mark.parametrize("where", ["finetune.run.estimate._step", "transformers.Trainer.compute_loss"])
def test_too_little_memory_is_said(
    where: str, make_recipe: MakeRecipe, parts: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def too_much(*_: object, **__: object) -> None:
        torch.empty(2**48)  # a petabyte, which no allocator gives

    monkeypatch.setattr(where, too_much)
    recipe = make_recipe()
    run = run_of(recipe, parts.settings)
    settings = r"training\.batch_size \(8; raise .*training\.max_length \(32\) or method\.rank \(8\), or take .*qlora"
    with pytest.raises(OutOfMemory, match=rf"the memory of this machine is not enough.*Lower {settings}"):
        train(recipe, run, parts)
    assert run.status().state == "failed"
    assert "Lower training.batch_size" in run.status().error


def test_a_mistake_in_a_program_is_not_hidden(
    make_recipe: MakeRecipe, parts: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("finetune.run.estimate._step", wrong)
    run = run_of(make_recipe(), parts.settings)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(make_recipe(), run, parts)
    assert (run.status().state, run.status().error) == ("failed", "mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("error", "method", "said"),
    [
        (MemoryError(), {"name": "full"}, "another method than full: lora"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), {"name": "qlora"}, r"method\.rank \(8\)$"),
        (OSError(28, "No space left on device"), {"name": "lora"}, "No space left on device while writing"),
        (PermissionError(13, "Permission denied"), {"name": "lora"}, "Permission denied while writing"),
    ],
)
def test_what_a_machine_lacks_is_told(
    error: Exception, method: dict[str, str], said: str, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    assert re.search(said, str(as_suite_error(error, make_recipe(method=method), tmp_path)))


def test_a_status_is_never_read_half_written(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write(Status(step=3))
    (tmp_path / ".status.json.1.part").write_text("{")
    assert run.status().step == 3
    (tmp_path / "status.json").write_text("{")
    assert run.status().state == "failed"
