"""A run from start to end: its files, stopping and going on, and what ends it early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from finetune.recipe import read_recipe
from finetune.runs import Run, Status, run_of
from finetune.train import prepare, train
from finetune.watch import Diverged, Stopped, Watch
from shared.context import Runtime
from shared.errors import Busy, SuiteError
from tests.finetune.conftest import MakeRecipe

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


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
    assert not (run.folder / "result.part").exists()
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

    from finetune.estimate import estimate

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
def test_a_killed_run_goes_on(make_recipe: MakeRecipe, parts: Runtime, tmp_path: Path) -> None:
    recipe = make_recipe(**{"training.max_steps": 16, "training.evaluations": 8})
    path = tmp_path / "tiny.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    environment = {**os.environ, "SUITE_CACHE_DIR": str(parts.settings.cache_dir)}
    command = [sys.executable, "-m", "finetune", str(path), "--skip-evaluation"]
    run = run_of(recipe, parts.settings)
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while (run.last_checkpoint() is None) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert not run.alive()
    assert not run.result.exists()
    reached = run.status().step
    assert 0 < reached < 16
    done = subprocess.run(
        [*command, "--resume"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert run.status().state == "done"
    assert weights(run)


def test_a_run_that_diverges_stops_and_says_where(
    make_recipe: MakeRecipe, parts: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.watch.LOSS_LIMIT", 6.0)
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


def test_only_one_process_trains_a_run(make_recipe: MakeRecipe, parts: Runtime) -> None:
    recipe = make_recipe()
    run = run_of(recipe, parts.settings)
    with run.held(), pytest.raises(Busy, match="trained already"):
        train(recipe, run, parts)


def test_a_full_disk_is_said(make_recipe: MakeRecipe, parts: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    import finetune.train

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(finetune.train, "save_result", full)
    run = run_of(make_recipe(), parts.settings)
    with pytest.raises(SuiteError, match=r"No space left on device.*MB are free there.*--resume"):
        train(make_recipe(), run, parts)
    assert run.status().state == "failed"


def test_a_status_is_never_read_half_written(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write(Status(step=3))
    (tmp_path / ".status.json.1.part").write_text("{")
    assert run.status().step == 3
    (tmp_path / "status.json").write_text("{")
    assert run.status().state == "failed"
