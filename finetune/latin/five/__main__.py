"""`python -m finetune.latin.five --out FOLDER`: makes the music where it is missing, trains, calibrates, measures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from finetune.latin.five import features, fitting, measuring
from finetune.latin.five.card import card
from finetune.latin.five.recipe import RECIPE, read_recipe
from finetune.latin.synthesis.__main__ import synthesize
from finetune.latin.synthesis.style import OTHER
from shared.checkpoints.catalog import Catalog
from shared.checkpoints.weights import verified_folder
from shared.engines.audio import musicnn
from shared.engines.audio.musicnn_head import HEADS, WEIGHTS
from shared.errors import SuiteError
from shared.settings import Settings

FIGURES = "figures.json"


def make(recipe_file: Path, clips: Path, out: Path) -> None:
    """Writes head, card and figures. Raises `SuiteError`."""
    recipe, settings = read_recipe(recipe_file), Settings()
    folders = [clips / f"seed-{seed}" for seed in recipe.seeds]
    for folder, seed in zip(folders, recipe.seeds, strict=True):
        synthesize(folder, recipe.clips, seed)
    checkpoint = Catalog.read().choose_by_id(recipe.base)
    engine = musicnn.load(checkpoint, verified_folder(checkpoint, settings, _quiet), settings, _quiet)
    synthetic = [clip for folder in folders for clip in features.read_clips(folder, engine, recipe.layer, _tick)]
    real = features.real_music(clips / "real", engine, recipe.layer, _tick)
    head, trials = fitting.best_head([*synthetic, *real], recipe)
    found = measuring.figures(head, synthetic, real)

    others = features.select([*synthetic, *real], "validation", genre=OTHER)
    counts = {source: sum(clip.source == source for clip in others) for source in sorted({c.source for c in others})}
    calibration = ", ".join(f"{count} clips of {source}" for source, count in counts.items())
    out.mkdir(parents=True, exist_ok=True)
    head.write(out / WEIGHTS)
    text = card(head, recipe, len(synthetic), trials, found, calibration)
    (out / "README.md").write_text(text, encoding="utf-8")
    (out / FIGURES).write_text(json.dumps(measuring.as_json(found), indent=1) + "\n", encoding="utf-8")
    print(measuring.as_table(found))


def _tick(done: int, total: int) -> None:
    if done % 200 == 0 or done == total:
        print(f"computed features of {done:,} of {total:,}", file=sys.stderr, flush=True)


def _quiet(what: str, done: int, total: int) -> None:
    return None


def main(
    recipe: Annotated[Path, typer.Option(help="YAML file that decides everything.")] = RECIPE,
    clips: Annotated[Path, typer.Option(help="Folder of the music; what is missing is made.")] = Path("latin-clips"),
    out: Annotated[Path, typer.Option(help="Folder for head, card and figures.")] = HEADS / "latin-five",
) -> None:
    """Train the head "Latin five" on generated music, and measure it."""
    try:
        make(recipe, clips, out)
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    typer.run(main)
