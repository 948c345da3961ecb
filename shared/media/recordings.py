"""Recordings → mono float32 windows at the rate a model hears, read block by block: a long one costs no more memory.

libsndfile decodes wav, flac, ogg, opus and mp3 (and AIFF), through soundfile and without FFmpeg. What a file says of
itself is not believed: its length is only a guess for progress, and what it holds is read up to a limit in seconds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soundfile

from shared.errors import InvalidInput

FORMATS = {"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF"}
"""Of libsndfile's many, those that people have. Its decoders of forty-year-old formats are not for strangers' bytes."""
READABLE = "wav, flac, ogg, opus and mp3 can be read here"
BLOCK_FRAMES = 16_384
SLOWEST, FASTEST, MOST_CHANNELS = 4_000, 400_000, 16
SHORTEST_SECONDS = 0.5
"""A drum is heard in less, but no music."""
SILENCE = 10 ** (-60 / 20)
"""Root mean square of a window, of full scale, under which it is taken for silent."""
FULL_SCALE = 0.999
CLIPPED_SHARE = 0.005
"""Share of samples at full scale above which a recording is said to be clipped."""
RATIO_TERMS = 1000
"""Largest number in the ratio of two rates. 44.1 to 16 kHz is 160 : 441; of rates that have no such ratio the nearest
is taken, and an hour is off by some milliseconds at most."""


class Recording:
    """An open sound file. Use it in a `with` block; after `mono` has ended, the attributes say what it met."""

    def __init__(self, path: str | Path, most_seconds: float, field: str = "audio") -> None:
        """Raises `InvalidInput` (its `field`) for what is no sound file, or one that no model here could hear."""
        self._field = field
        self.most_seconds = most_seconds
        self.seconds = 0.0
        """Decoded so far."""
        self.cut = False
        """Whether it goes on after `most_seconds`."""
        self.damaged = False
        """Whether its end could not be decoded."""
        self.repaired = 0
        """Samples that were no numbers (NaN, infinity) and were taken for silence."""
        self.samples = self.clipped = 0
        self._file = self._open(Path(path))

    def _open(self, path: Path) -> Any:
        try:
            with path.open("rb") as file:
                start = file.read(64)
        except IsADirectoryError:
            raise self._refused("is a folder, not a recording") from None
        except OSError:
            raise self._refused("is not here any more; choose it again") from None
        if not start:
            raise self._refused("is empty: it has 0 bytes")
        if other := other_format(start):
            raise self._refused(f"is {other}, which cannot be read here; convert it: {READABLE}")
        # By its content alone, since soundfile would believe any ending; but an mp3 may begin with rubbish, and then
        # only its ending tells.
        named = path.suffix.lower() == ".mp3"
        source = str(path) if named else os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            file = Stream(source, closefd=True)
        except (soundfile.LibsndfileError, TypeError, ValueError, RuntimeError):
            if isinstance(source, int):
                with suppress(OSError):
                    os.close(source)
            raise self._refused(f"is not a sound file, whatever its name says, or is damaged; {READABLE}") from None
        reason = ""
        if file.format not in FORMATS:
            reason = f"is of the format {file.format}, which is not read here; {READABLE}"
        elif not SLOWEST <= file.samplerate <= FASTEST:
            reason = f"says it has {file.samplerate:,} samples a second; {SLOWEST:,} to {FASTEST:,} can be read here"
        elif not 1 <= file.channels <= MOST_CHANNELS:
            reason = f"has {file.channels} channels; at most {MOST_CHANNELS} can be read here"
        if reason:
            file.close()
            raise self._refused(reason)
        return file

    def _refused(self, reason: str) -> InvalidInput:
        return InvalidInput(reason, field=self._field)

    @property
    def rate(self) -> int:
        return self._file.samplerate

    @cached_property
    def expected_seconds(self) -> float:
        """As the file says, no more than will be read; 0 where it does not say."""
        frames = self._file.frames
        return min(frames / self.rate, self.most_seconds) if 0 < frames < 2**62 else 0.0

    @cached_property
    def description(self) -> str:
        """`MP3, 44.1 kHz, 2 channels`."""
        channels = "1 channel" if self._file.channels == 1 else f"{self._file.channels} channels"
        subtype = self._file.subtype.replace("_", " ").lower()
        name = "Opus" if subtype == "opus" else self._file.format
        bits = f", {subtype.removeprefix('pcm ')} bit" if subtype.startswith("pcm ") else ""
        return f"{name}{bits}, {self.rate / 1000:g} kHz, {channels}"

    def mono(self, rate: int) -> Iterator[np.ndarray]:
        """Blocks of mono float32 in [-1, 1] at `rate`: the mean of the channels.

        Raises `InvalidInput` at the end of a recording that is too short, and where nothing can be decoded.
        """
        resample = Resampler(self.rate, rate)
        left = int(self.most_seconds * self.rate)
        while True:
            try:
                block = self._file.read(min(BLOCK_FRAMES, left + 1), dtype="float32", always_2d=True)
            except (soundfile.LibsndfileError, RuntimeError):
                self.damaged = True
                break
            if not len(block):
                break
            self.cut = len(block) > left
            block = block[:left]
            left -= len(block)
            self.seconds += len(block) / self.rate
            yield resample(self._clean(block))
            if self.cut:
                break
        said = self._file.frames
        if not self.cut and 0 < said < 2**62 and self.seconds < 0.98 * said / self.rate - 0.1:
            self.damaged = True
        if not self.seconds and self.damaged:
            raise self._refused(f"cannot be decoded: it is damaged from its start; {READABLE}")
        if self.seconds < SHORTEST_SECONDS:
            raise self._refused(f"is {self.seconds:.2f} s long; at least {SHORTEST_SECONDS:g} s are needed")
        yield resample.rest()

    def _clean(self, block: np.ndarray) -> np.ndarray:
        finite = np.isfinite(block)
        if not finite.all():
            self.repaired += int(block.size - finite.sum())
            block = np.where(finite, block, 0)
        self.samples += block.size
        self.clipped += int((np.abs(block) >= FULL_SCALE).sum())
        return np.clip(block, -1, 1).mean(axis=1, dtype=np.float32)

    @property
    def warnings(self) -> list[str]:
        """What makes the answer doubtful, each as a sentence."""
        found = []
        if self.cut:
            found.append(f"Only the first {clock(self.most_seconds)} were heard (SUITE_MAX_AUDIO_SECONDS).")
        if self.damaged:
            found.append(f"The file is damaged or cut short: {self.seconds:.1f} s of it could be decoded.")
        if self.repaired:
            found.append(f"{self.repaired:,} samples were not numbers and were taken for silence.")
        if self.clipped > CLIPPED_SHARE * self.samples:
            found.append(f"The recording is clipped: {100 * self.clipped / self.samples:.1f} % of it is at full scale.")
        return found

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Stream(soundfile.SoundFile):
    """A sound file that is read from its start to its end.

    soundfile seeks to where it is after each read (0.14). In an mp3 that empties the decoder, and the next block
    begins with silence: of blocks of 4,096 samples almost nothing was left.
    """

    def seekable(self) -> bool:
        return False


def other_format(start: bytes) -> str:
    """What a file is that people take for sound and that cannot be read; "" where its first bytes do not say."""
    if start[4:8] == b"ftyp":
        return "m4a (AAC) or a video"
    if len(start) > 1 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0:
        return "AAC"
    if start[:4] == b"\x1aE\xdf\xa3":
        return "WebM"
    if start[:4] == b"\x30\x26\xb2\x75":
        return "WMA"
    return ""


def clock(seconds: float) -> str:
    """`0:07`, `61:30` or, from ten hours on, still minutes: one kind of number along a timeline."""
    whole = int(seconds + 1e-6)
    return f"{whole // 60}:{whole % 60:02d}"


class Resampler:
    """`scipy.signal.resample_poly` over a stream of blocks, equal to that of the whole to the last digits.

    soxr's `ResampleStream` takes 0.1 s for a minute of sound instead of 0.3 s, but its filter gives other samples, and
    so the models other scores.
    """

    def __init__(self, source: int, target: int) -> None:
        from scipy.signal import firwin  # here, since it takes half a second to import

        ratio = Fraction(target, source).limit_denominator(RATIO_TERMS)
        self._up, self._down = ratio.numerator, ratio.denominator
        widest = max(self._up, self._down)
        half = 10 * widest
        # resample_poly's own default filter, made once.
        kaiser: Any = ("kaiser", 5.0)
        taps = firwin(2 * half + 1, 1 / widest, window=kaiser) if widest > 1 else np.ones(1)
        self._taps = np.asarray(taps, dtype=np.float32)
        reach = math.ceil(half / self._up)
        self._context = math.ceil(reach / self._down) * self._down
        """Samples that the filter sees on either side, a multiple of `down` so that its output falls into step."""
        self._pending = np.zeros(self._context, dtype=np.float32)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """What can be said now: the last samples wait for those that follow them."""
        if self._up == self._down:
            return block
        self._pending = np.concatenate([self._pending, block])
        ready = (len(self._pending) - 2 * self._context) // self._down * self._down
        if ready <= 0:
            return np.zeros(0, dtype=np.float32)
        found = self._filtered(self._pending[: ready + 2 * self._context], ready)
        self._pending = self._pending[ready:]
        return found

    def rest(self) -> np.ndarray:
        """What is left at the end."""
        ready = len(self._pending) - self._context
        if self._up == self._down or ready <= 0:
            return np.zeros(0, dtype=np.float32)
        return self._filtered(np.pad(self._pending, (0, self._context)), ready)

    def _filtered(self, samples: np.ndarray, ready: int) -> np.ndarray:
        from scipy.signal import resample_poly

        found = resample_poly(samples, self._up, self._down, window=self._taps)
        start = self._context * self._up // self._down
        return found[start : start + math.ceil(ready * self._up / self._down)].astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a recording as a model hears it. `start` and `end` are seconds."""

    start: float
    end: float
    samples: np.ndarray
    """float32, of the same length for every window of a recording."""
    silent: bool


def windows(blocks: Iterable[np.ndarray], rate: int, window_seconds: float, hop_seconds: float) -> Iterator[Window]:
    """Cuts a stream of mono blocks into windows.

    The last one is moved back so that it ends with the recording; one that is shorter than a window is repeated until
    it fills it, as the makers of musicnn did in training.
    """
    size, hop = round(window_seconds * rate), round(hop_seconds * rate)
    held, first = np.zeros(0, dtype=np.float32), 0
    """Samples not yet dropped, and the place of the first of them in the recording."""
    start = 0
    for block in blocks:
        held = np.concatenate([held, block])
        while start + size <= first + len(held):
            yield _window(held[start - first : start - first + size], start, rate)
            start += hop
        # A whole window is kept behind, for the last one.
        drop = max(0, min(start, first + len(held) - size) - first)
        held, first = held[drop:], first + drop
    end = first + len(held)
    heard = start - hop + size if start else 0
    if not start and end:
        yield _window(np.resize(held, size), 0, rate, end)
    elif end - heard >= rate * 0.1 and end > heard:
        yield _window(held[-size:], end - size, rate, end)


def _window(samples: np.ndarray, start: int, rate: int, end: int | None = None) -> Window:
    level = math.sqrt(float(np.mean(np.square(samples, dtype=np.float64))))
    stop = start + len(samples) if end is None else end
    return Window(start / rate, stop / rate, samples, level < SILENCE)
