"""What a soak uploads: a sound and a table, of which each is asked for again and again."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile
from gradio_client import handle_file

from benchmarks.workload import Case, topics

RATE = 16_000
SECONDS = 6
ROWS = 20


def uploads(folder: Path) -> list[Case]:
    """Cases whose files lie in `folder`; they are asked through `gradio_client`, which uploads them."""
    sound, rows = folder / "sound.wav", folder / "rows.csv"
    times = np.arange(RATE * SECONDS) / RATE
    soundfile.write(sound, 0.3 * np.sin(2 * np.pi * 220 * times * (1 + times / 10)), RATE)
    with rows.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([topics(number)] for number in range(ROWS))])
    settings = {"candidate_labels": "sports, politics, cooking"}
    return [
        Case(f"audio_genre, {SECONDS} s", "/audio_genre", lambda _: {"audio": handle_file(str(sound))}, "audio_genre"),
        Case(
            f"batch of {ROWS} rows",
            "/batch",
            lambda _: {"task": "zero_shot", "file": handle_file(str(rows)), "settings": settings},
        ),
    ]
