"""Sound files of every kind that people have, made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 44_100


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0, level: float = 0.3) -> np.ndarray:
    """float32 in [-1, 1], shape (samples,)."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, sound: np.ndarray, rate: int = RATE, **options: Any) -> Path:
    soundfile.write(path, sound, rate, **options)
    return path


def endless_flac(path: Path, minutes: int = 30, *, claimed: bool = False) -> Path:
    """Silence that packs into nearly nothing: some 1,500 bytes a minute. `claimed` says it is 100 days long."""
    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC") as file:
        for _ in range(minutes):
            file.write(np.zeros(8000 * 60, dtype=np.int16))
    if claimed:
        content = bytearray(path.read_bytes())
        content[21] |= 0x0F  # the 36 bits that say how many samples there are
        content[22:26] = b"\xff" * 4
        path.write_bytes(content)
    return path


def broken(folder: Path) -> dict[str, Path]:
    """Files that are no sound, by what is wrong with them."""
    mp3 = write(folder / "whole.mp3", tone(2)).read_bytes()
    wav = write(folder / "whole.wav", tone(2)).read_bytes()
    contents = {
        "empty.wav": b"",
        "text.mp3": b"These are the words of a song.\n" * 100,
        "header-only.wav": wav[:30],
        "few-bytes.mp3": mp3[:200],
        "endless-tag.mp3": b"ID3\x03\x00\x00\x7f\x7f\x7f\x7f" + b"A" * 1000 + mp3,
        "song.m4a": b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00" + b"x" * 200,
        "aac.mp3": b"\xff\xf1\x50\x80" + b"x" * 200,
        "sound.webm": b"\x1aE\xdf\xa3" + b"x" * 200,
        "rate.wav": wav[:24] + (2**31 - 1).to_bytes(4, "little") + wav[28:],
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    write(folder / "short.wav", tone(0.1))
    write(folder / "channels.wav", np.zeros((RATE, 20), np.float32))
    return {name: folder / name for name in [*contents, "short.wav", "channels.wav"]}


REFUSED = {
    "empty.wav": "is empty: it has 0 bytes",
    "text.mp3": "is not a sound file, whatever its name says, or is damaged; wav, flac, ogg, opus and mp3 can be read",
    "header-only.wav": "is not a sound file",
    "few-bytes.mp3": "is not a sound file",
    "endless-tag.mp3": "is not a sound file",
    "song.m4a": "is m4a (AAC) or a video, which cannot be read here; convert it: wav, flac, ogg, opus and mp3",
    "aac.mp3": "is AAC, which cannot be read here",
    "sound.webm": "is WebM, which cannot be read here",
    "rate.wav": "samples a second; 4,000 to 400,000 can be read here",
    "short.wav": "is 0.10 s long; at least 0.5 s are needed",
    "channels.wav": "has 20 channels; at most 16 can be read here",
}
"""What is said of each of `broken`."""
