"""Which clips there will be: genre, source, groove file, soundfont and part of each, before anything is played.

No groove file and no soundfont is in two parts (tested). What is MMA's is there under any soundfont of its part.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from finetune.latin.synthesis.grooves import groove_files
from finetune.latin.synthesis.patterns import GENRES
from finetune.latin.synthesis.rendering import soundfonts
from finetune.latin.synthesis.style import OTHER

Share = tuple[str, str, str, float]
SHARES: tuple[Share, ...] = (
    *(("train", genre, "own", 0.085) for genre in GENRES),
    ("train", OTHER, "own", 0.085),
    ("train", "Salsa", "mma", 0.04),
    ("train", OTHER, "mma", 0.11),
    *(("validation", genre, "own", 0.012) for genre in GENRES),
    ("validation", OTHER, "own", 0.012),
    ("validation", "Salsa", "mma", 0.014),
    ("validation", OTHER, "mma", 0.05),
    *(("test", genre, "own", 0.02) for genre in GENRES),
    ("test", "Salsa", "mma", 0.03),
    ("test", "Merengue", "mma", 0.03),
    ("test", OTHER, "mma", 0.079),
)
"""Part, genre, source, and the share of all clips. No result chose them."""


@dataclass(frozen=True)
class Clip:
    number: int
    genre: str
    source: str
    """`own` patterns, or `mma`."""
    groove_file: str
    """MMA's, "" for our own."""
    soundfont: str
    split: str


def plan(clips: int, seed: int) -> Iterator[Clip]:
    """In a mixed order: the first ones are a sample. Raises `SuiteError` where MMA or a soundfont is missing."""
    chance = random.Random(seed)
    rows = [
        (split, genre, source) for split, genre, source, share in SHARES for _ in range(max(1, round(share * clips)))
    ]
    chance.shuffle(rows)
    files = groove_files()
    for number, (split, genre, source) in enumerate(rows):
        able = [name for name, there in files.items() if there == (genre, split)]
        groove_file = chance.choice(able) if source == "mma" else ""
        yield Clip(number, genre, source, groove_file, chance.choice(soundfonts(split)), split)
