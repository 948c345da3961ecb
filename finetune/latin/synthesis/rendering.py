"""A MIDI file → sound, by fluidsynth with one of four soundfonts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import soundfile

from finetune.latin.synthesis.grooves import PACKAGES
from shared.errors import SuiteError

RATE = 22_050
SOUNDFONTS: dict[str, tuple[str, str]] = {
    "FluidR3": ("/usr/share/sounds/sf2/FluidR3_GM.sf2", "train"),
    "OPL3": ("/usr/share/sounds/sf2/OPL-3_FM_128M.sf2", "train"),
    "TimGM6mb": ("/usr/share/sounds/sf2/TimGM6mb.sf2", "validation"),
    "GMbank": ("/usr/share/sounds/sf2/sf_GMbank.sf2", "test"),
}
"""Name → file and part. No two of them have a common ancestor, as far as their authors say."""


def soundfonts(part: str) -> list[str]:
    """Raises `SuiteError` that names Debian's packages where one of the part is missing."""
    found = [name for name, (_, of) in SOUNDFONTS.items() if of == part]
    if missing := [name for name in found if not Path(SOUNDFONTS[name][0]).is_file()]:
        raise SuiteError(
            f"soundfonts are missing ({', '.join(missing)}); on Debian or Ubuntu: "
            f"apt-get install --no-install-recommends {PACKAGES}"
        )
    return found


def render(midi: Path, soundfont: str, folder: Path, seconds: float) -> np.ndarray:
    """Mono float32 at `RATE`, from the first sound on, at most so long. Raises `SuiteError`."""
    out = folder / "song.wav"
    out.unlink(missing_ok=True)
    command = ["fluidsynth", "-q", "-n", "-i", "-R", "0", "-C", "0", "-g", "0.4", "-r", str(RATE)]
    command += ["-o", "synth.dynamic-sample-loading=1", "-F", str(out), SOUNDFONTS[soundfont][0], str(midi)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        raise SuiteError(
            f"fluidsynth is not installed; on Debian or Ubuntu: apt-get install --no-install-recommends {PACKAGES}"
        ) from None
    if done.returncode or not out.is_file():
        raise SuiteError(f"fluidsynth cannot play with {soundfont}: {done.stderr.strip()[-200:]}")
    with soundfile.SoundFile(out) as file:
        sound = file.read(int((seconds + 6) * RATE), dtype="float32", always_2d=True).mean(axis=1)
    loud = np.flatnonzero(np.abs(sound) > 1e-3)
    return sound[loud[0] : loud[0] + int(seconds * RATE)] if len(loud) else sound[:0]
