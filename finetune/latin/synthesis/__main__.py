"""`python -m finetune.latin.synthesis --out FOLDER`: a folder for each genre, and a table that says what is what."""

from __future__ import annotations

import csv
import random
import sys
import tempfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer

from finetune.latin.synthesis import grooves, rendering
from finetune.latin.synthesis.arrange import arrange
from finetune.latin.synthesis.augmentation import augmented
from finetune.latin.synthesis.midi import midi_file
from finetune.latin.synthesis.other_patterns import OTHERS
from finetune.latin.synthesis.patterns import LATIN
from finetune.latin.synthesis.plan import Clip, plan
from finetune.latin.synthesis.style import OTHER
from shared.atomic import atomic_file
from shared.errors import SuiteError

SECONDS = 6.0
"""Of a clip: two windows of musicnn."""
TABLE = "clips.csv"


def synthesize(out: Path, clips: int, seed: int) -> None:
    """Writes what is not there yet, so a run that was stopped goes on. Raises `SuiteError`."""
    rows = list(plan(clips, seed))
    out.mkdir(parents=True, exist_ok=True)
    with (out / TABLE).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["file", *(f.name for f in fields(Clip))])
        table.writeheader()
        table.writerows({"file": name(clip), **asdict(clip)} for clip in rows)
    with tempfile.TemporaryDirectory() as folder:
        for done, clip in enumerate(rows, 1):
            target = out / name(clip)
            if not target.is_file():
                target.parent.mkdir(exist_ok=True)
                sound = sound_of(clip, seed, Path(folder))
                with atomic_file(target) as part:
                    soundfile.write(part, sound, rendering.RATE, format="FLAC")
            if done % 100 == 0 or done == len(rows):
                print(f"{done:,} of {len(rows):,} clips", file=sys.stderr, flush=True)


def name(clip: Clip) -> str:
    return f"{clip.genre}/{clip.number:05}.flac"


def sound_of(clip: Clip, seed: int, folder: Path) -> np.ndarray:
    """Mono float32 at `rendering.RATE`; the same for the same seed, but for MMA's own chance."""
    chance = random.Random(f"{seed} {clip.number}")
    wanted = SECONDS + 2.5  # so that a clip begins somewhere in the piece
    if clip.source == "mma":
        midi = grooves.play(clip.groove_file, wanted, chance, folder)
    else:
        style = chance.choice(OTHERS if clip.genre == OTHER else LATIN[clip.genre])
        midi = folder / "song.mid"
        midi.write_bytes(midi_file(arrange(style, wanted, chance)))
    sound = rendering.render(midi, clip.soundfont, folder, wanted)
    start = int(chance.uniform(0, 2) * rendering.RATE)
    sound = sound[start : start + int(SECONDS * rendering.RATE)]
    if len(sound) < rendering.RATE:
        raise SuiteError(f"clip {clip.number} ({clip.groove_file or clip.genre}) is silent")
    return augmented(sound, rendering.RATE, np.random.default_rng([seed, clip.number]))


def main(
    out: Annotated[Path, typer.Option(help="Folder for the clips and the table.")],
    clips: Annotated[int, typer.Option(min=20, help="About how many.")] = 1300,
    seed: Annotated[int, typer.Option(min=0)] = 1,
) -> None:
    """Make music of five Latin genres and of other kinds."""
    try:
        synthesize(out, clips, seed)
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    typer.run(main)
