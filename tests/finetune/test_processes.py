"""Several processes train one run: through the launchers, on CPUs, over loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune import processes
from finetune.run.train import train
from finetune.run_folder import Run, Status, run_of
from shared.serving.runtime import Runtime
from tests.finetune.conftest import MakeRecipe
from tests.finetune.test_methods import losses

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_train_one_model_and_the_first_writes_it(
    make_recipe: MakeRecipe, parts: Runtime, tmp_path: Path
) -> None:
    recipe = make_recipe(**{"training.max_steps": 0, "training.epochs": 2, "training.batch_size": 4})
    alone = Run(parts.settings.cache_dir / "alone")
    train(make_recipe(**{"training.max_steps": 0, "training.epochs": 2, "training.batch_size": 8}), alone, parts)
    (tmp_path / "tiny.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    ran = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "finetune", str(tmp_path / "tiny.yaml"), "--skip-evaluation"],
        cwd=ROOT,
        env={**os.environ, "SUITE_CACHE_DIR": str(parts.settings.cache_dir), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("reading rows") + ran.stderr.count("reading rows") == 1
    assert ran.stdout.count("the suite offers it now") == 1
    run = run_of(recipe, parts.settings)
    assert run.status().state == "done"
    steps = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in steps if "loss" in entry] == list(range(1, len(losses(alone)) + 1))
    # Twice four rows a step cost what eight do, and teach as much.
    assert losses(run)[0] == pytest.approx(losses(alone)[0], abs=0.1)
    assert losses(run)[-1] == pytest.approx(losses(alone)[-1], abs=0.4)


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    run.write(Status(step=3))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (processes.is_main_process(), processes.num_processes()) == (False, 2)
    run.write(Status(step=4))
    run.log({"step": 4})
    assert run.status().step == 3
    assert run.entries() == []


def test_a_process_alone_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")  # which some launchers set for their own reasons
    assert (processes.is_main_process(), processes.num_processes()) == (True, 1)
    processes.wait_for_everyone()
    processes.destroy()
    assert processes.any_process(True)
    assert not processes.any_process(False)
