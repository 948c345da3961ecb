"""Trains every shipped recipe and puts what was measured into `finetune/README.md`: `make recipes`."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import ROOT
from benchmarks.report import machine, say, table, write_section
from finetune.methods import Distillation
from finetune.recipe import Recipe, shipped_recipes
from finetune.run_folder import Run, run_of
from shared.settings import Settings

README = ROOT / "finetune" / "README.md"
COLUMNS = ("recipe", "method", "learn", "share", "steps", "s/step", "min", "GB", "MB", "best base", "tuned", "95 %", "")

NOTES = """\
*learn*: trainable parameters, *share*: of all, in percent. *s/step*: median of the steps, validation left out. *min*: \
minutes of training, validation included, evaluation not. *GB*: most memory of the process, data and libraries \
included. *MB*: size of the weights that come out. *best base*: the best of the base without and with examples; \
*95 %*: interval of the tuned model's lead over it by the paired bootstrap (of perplexity: of the loss per token). The \
last column says whether that is above zero throughout."""


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Recipes; all by default.")] = None,
    only_table: Annotated[bool, typer.Option("--table", help="Write the table of what was trained before.")] = False,
) -> None:
    """Train and measure recipes, then write their table."""
    settings, recipes = Settings(), in_order()
    if not only_table:
        for recipe in recipes:
            if not names or recipe.name in names:
                say(f"=== {recipe.name}")
                subprocess.run(
                    [sys.executable, "-m", "finetune", recipe.name], cwd=ROOT, check=False
                )  # one that fails is a row
    rows = [cells(recipe, run_of(recipe, settings)) for recipe in recipes]
    write_section(README, "recipes", "\n\n".join([machine(), table(COLUMNS, rows, left=2), NOTES]))


def in_order() -> list[Recipe]:
    """Teachers before their students."""
    return sorted(shipped_recipes(), key=lambda recipe: isinstance(recipe.method, Distillation))


def cells(recipe: Recipe, run: Run) -> list[str]:
    """A run that failed or was not done says so."""
    try:
        facts = read(run.result / "training.json")
        measured = read(run.result / "evaluation.json")
    except OSError:
        status = run.status() if run.folder.is_dir() else None
        why = "not run" if status is None else status.error or status.state
        return [recipe.name, recipe.method.name, *[""] * (len(COLUMNS) - 3), why]
    status, name = facts["status"], measured["metric"]
    low, high = measured["lead"]
    return [
        recipe.name,
        recipe.method.name,
        f"{status['trainable']:,}",
        f"{100 * status['trainable'] / status['parameters']:.2f}",
        str(status["step"]),
        f"{seconds_per_step(run):.2f}",
        f"{status['seconds'] / 60:.1f}",
        f"{status['peak_memory'] / 1e9:.2f}",
        f"{weight_bytes(run.result) / 1e6:.1f}",
        f"{name} {measured['base']:.3f}",
        f"{measured['tuned']:.3f}",
        f"{low:+.3f} to {high:+.3f}",
        "better" if measured["beats_base"] else "**not shown to be better**",
    ]


def seconds_per_step(run: Run) -> float:
    entries = read(run.result / "loss.json")
    steps = [(e["step"], e["seconds"]) for e in entries if "loss" in e]
    validated = {e["step"] for e in entries if "validation_loss" in e}
    return statistics.median(
        after - before for (at, before), (_, after) in itertools.pairwise(steps) if at not in validated
    )


def weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    typer.run(main)
