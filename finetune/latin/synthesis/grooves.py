"""Grooves of MMA (Musical MIDI Accompaniment, van der Poel, GPL): which files are in which part, and their music.

Grooves of one file are near-duplicates of each other, so a file belongs to one part as a whole. Which files are
training, validation and test of the two genres that MMA has is written here and was never changed by a result.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
import subprocess
from pathlib import Path

from shared.errors import SuiteError

LIBRARY = Path("/usr/share/mma/lib")
PACKAGES = "mma fluidsynth fluid-soundfont-gm timgm6mb-soundfont csound-soundfont opl3-soundfont"

LATIN_FILES: dict[str, tuple[str, str, tuple[float, float]]] = {
    "yamaha/salsa1": ("Salsa", "train", (156, 228)),
    "stdlib/mambo": ("Salsa", "train", (156, 228)),
    "stdlib/son": ("Salsa", "train", (140, 210)),
    "yamaha/mambo": ("Salsa", "validation", (156, 228)),
    "stdlib/salsa": ("Salsa", "test", (156, 228)),
    "yamaha/salsa2": ("Salsa", "test", (156, 228)),
    "stdlib/merengue": ("Merengue", "test", (224, 324)),
}
"""File → genre, part, and beats a minute as it is notated. Mambo and son are where salsa comes from, and count as it.
There is one file of merengue, and it is for the test: what the head knows of merengue it has from our patterns."""

RELATIVES = {
    *("chacha", "afro-cuban", "cubanguitar", "rhumba", "jazzrhumba", "bolero", "slowbolero", "beguine", "latinfusion"),
    *("latinhouse", "lfusion", "latin", "afro", "quando-g.s280"),
}
"""Too near to the five to be called none of them, too far to be one of them: left out altogether."""
NO_MUSIC = {"none", "metronome", "metronome3", "metronome6", "metronome68", "count", "intro", "ending", "rd"}
UNLIKE_A_PIECE = re.compile(r"(intro|end|ending|fill|break)[a-z]*\d*$", re.I)
PROGRESSIONS = (
    "C Am F G",
    "C F G C",
    "Am Dm E7 Am",
    "Dm7 G7 Cmaj7 Cmaj7",
    "C C G7 G7",
    "Am G F E7",
    "C C7 F Fm",
    "Am Am E7 E7",
)


def require() -> None:
    """Raises `SuiteError` that names Debian's packages where MMA is missing."""
    if not LIBRARY.is_dir():
        raise SuiteError(
            f"MMA is not installed; on Debian or Ubuntu: apt-get install --no-install-recommends {PACKAGES}"
        )


@functools.cache
def groove_files() -> dict[str, tuple[str, str]]:
    """File (`stdlib/waltz`) → what it is (a genre, or `Other`) and its part. The others are divided by their name."""
    require()
    found = {name: (genre, part) for name, (genre, part, _) in LATIN_FILES.items()}
    for path in sorted(LIBRARY.glob("*/*.mma")):
        name = f"{path.parent.name}/{path.stem}"
        if name in found or path.stem in RELATIVES | NO_MUSIC or not grooves_of(name):
            continue
        # By the stem, since the folders have files of one name and one rhythm.
        draw = hashlib.sha256(path.stem.lower().rstrip("0123456789").encode()).digest()[0] / 256
        found[name] = ("Other", "train" if draw < 0.5 else "validation" if draw < 0.7 else "test")
    return found


@functools.cache
def grooves_of(name: str) -> tuple[str, ...]:
    """The grooves that a file defines, without introductions, fills and endings."""
    text = (LIBRARY / f"{name}.mma").read_text(encoding="utf-8", errors="replace")
    named = re.findall(r"^\s*DefGroove\s+(\S+)", text, re.I | re.M)
    return tuple(groove for groove in named if not UNLIKE_A_PIECE.search(groove))


def play(name: str, seconds: float, chance: random.Random, folder: Path) -> Path:
    """Lets MMA play a groove of a file; returns the MIDI file. Raises `SuiteError` where MMA will not."""
    groove = chance.choice(grooves_of(name))
    low, high = LATIN_FILES[name][2] if name in LATIN_FILES else (80, 170)
    tempo = chance.uniform(low, high)
    chords = chance.choice(PROGRESSIONS).split()
    bars = int(seconds * tempo / 60 / 3) + 3  # of three beats, the fewest
    lines = [f"Tempo {tempo:.0f}", f"Transpose {chance.randint(-5, 6)}", f"Use {name}", f"Groove {groove}"]
    lines += [f"{bar + 1} {chords[bar % len(chords)]}" for bar in range(bars)]
    song, out = folder / "song.mma", folder / "song.mid"
    out.unlink(missing_ok=True)
    song.write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = subprocess.run(["mma", "-f", str(out), str(song)], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode or not out.is_file():
        said = (done.stdout + done.stderr).strip().splitlines()
        raise SuiteError(f"MMA does not play {groove} of {name}: {said[-1] if said else 'no reason given'}")
    return out
