"""The example clip of the Audio genre tab: a merengue of our patterns, with the soundfont Fluid R3 (MIT licence).

python -m finetune.latin.five.example
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from finetune.latin.synthesis.arrange import arrange
from finetune.latin.synthesis.midi import midi_file
from finetune.latin.synthesis.patterns import LATIN
from finetune.latin.synthesis.rendering import RATE, render

CLIP = Path(__file__).parents[3] / "spaces" / "audio_genre" / "clips" / "merengue.ogg"
SECONDS, SEED = 12.0, 2026
OPUS_RATE = 24_000


def main() -> None:
    from scipy.signal import resample_poly

    with tempfile.TemporaryDirectory() as folder:
        midi = Path(folder) / "song.mid"
        midi.write_bytes(midi_file(arrange(LATIN["Merengue"][0], SECONDS, random.Random(SEED))))
        sound = render(midi, "FluidR3", Path(folder), SECONDS)
    sound = resample_poly(sound, OPUS_RATE // 150, RATE // 150)
    sound = 0.5 * sound / np.abs(sound).max()
    soundfile.write(CLIP, sound, OPUS_RATE, format="OGG", subtype="OPUS", compression_level=0.96)


if __name__ == "__main__":
    main()
