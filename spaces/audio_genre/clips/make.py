"""Makes the example clips beside this file: short pieces from sine waves and noise, by fixed patterns of our own.

    python spaces/audio_genre/clips/make.py

Written for this project and released under CC0-1.0, as are the clips.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 24_000
COMPRESSION = 0.96
"""Of libsndfile, 0 to 1: about 30 kbit/s of Opus."""

RNG = np.random.default_rng(2019)


def hertz(note: float) -> float:
    """Of a MIDI note number."""
    return 440.0 * 2 ** ((note - 69) / 12)


def seconds(length: float) -> np.ndarray:
    return np.arange(int(length * RATE)) / RATE


def put(track: np.ndarray, at: float, sound: np.ndarray, level: float = 1.0) -> None:
    """Adds a sound to a track at a time in seconds; what goes over its end is cut."""
    start = int(at * RATE)
    sound = sound[: max(0, len(track) - start)]
    track[start : start + len(sound)] += level * sound


def low_pass(sound: np.ndarray, cutoff: float) -> np.ndarray:
    spectrum = np.fft.rfft(sound)
    frequencies = np.fft.rfftfreq(len(sound), 1 / RATE)
    return np.fft.irfft(spectrum / (1 + (frequencies / cutoff) ** 4), len(sound))


def sawtooth(note: float, length: float, cutoff: float) -> np.ndarray:
    return low_pass(2 * ((seconds(length) * hertz(note)) % 1) - 1, cutoff)


# -- techno: a drum machine, a bass and stabs ----------------------------------------------------


def kick() -> np.ndarray:
    t = seconds(0.28)
    return np.sin(2 * np.pi * (48 * t + 5.5 * (1 - np.exp(-t * 38)))) * np.exp(-t * 11)


def hat(length: float) -> np.ndarray:
    t = seconds(0.2)
    noise = RNG.standard_normal(len(t))
    return (noise - low_pass(noise, 6000)) * np.exp(-t / length)


def clap() -> np.ndarray:
    t = seconds(0.2)
    noise = RNG.standard_normal(len(t))
    return (low_pass(noise, 3500) - low_pass(noise, 800)) * np.exp(-t * 22)


def techno(length: float = 12.0, beats_a_minute: float = 132.0) -> np.ndarray:
    track = np.zeros(int(length * RATE))
    step = 60 / beats_a_minute / 4
    for number in range(int(length / step)):
        at, place = number * step, number % 16
        if place % 4 == 0:
            put(track, at, kick(), 0.9)
        else:
            cutoff = 500 + 900 * (0.5 - 0.5 * np.cos(2 * np.pi * at / 8))
            put(track, at, sawtooth(33 + (12 if place % 8 == 7 else 0), step * 0.9, cutoff), 0.22)
        if place % 4 == 2:
            put(track, at, hat(0.05), 0.16)
        put(track, at, hat(0.012), 0.07)
        if place in (4, 12):
            put(track, at, clap(), 0.5)
        if place in (3, 6, 11):
            chord = sum(sawtooth(note, 0.22, 2200) for note in (57, 60, 64))
            put(track, at, chord * np.exp(-seconds(0.22) * 14), 0.11)
    return track


# -- a waltz on plucked strings ------------------------------------------------------------------


def pluck(note: float, length: float = 1.8) -> np.ndarray:
    """A plucked nylon string: harmonics of one plucked at a fifth of its length, the high ones gone first."""
    t = seconds(length)
    out = np.zeros(len(t))
    for k in range(1, 1 + int(min(24, 0.45 * RATE / hertz(note)))):
        pitch = hertz(note) * k * np.sqrt(1 + 0.00012 * k * k)
        out += np.sin(np.pi * k / 5) / k * np.exp(-t * (1.6 + 0.55 * k)) * np.sin(2 * np.pi * pitch * t)
    finger = low_pass(RNG.standard_normal(len(t)), 1800) * np.exp(-t * 160)
    return (out + 0.25 * finger) * np.minimum(1, t / 0.002)


def waltz(length: float = 12.0, beats_a_minute: float = 126.0) -> np.ndarray:
    track = np.zeros(int(length * RATE))
    beat = 60 / beats_a_minute
    chords = [(45, 57, 60, 64), (50, 57, 62, 65), (52, 56, 59, 64), (45, 57, 60, 64)]
    melody = [(76, 1), (74, 0.5), (72, 0.5), (71, 1), (69, 2), (72, 1), (74, 1), (77, 1), (76, 0.5), (74, 0.5)]
    melody += [(72, 1), (71, 1), (68, 1), (71, 1), (72, 2), (69, 1)]
    for bar in range(int(length / beat / 3) + 1):
        bass, *others = chords[bar % 4]
        put(track, bar * 3 * beat, pluck(bass), 0.6)
        for place in (1, 2):
            for number, note in enumerate(others):
                put(track, (bar * 3 + place) * beat + 0.012 * number, pluck(note, 0.9), 0.25)
    at = 0.0
    while at < length:
        for note, beats in melody:
            put(track, at, pluck(note), 0.55)
            at += beats * beat
    return track


# -- a pad: slow chords, nothing else ------------------------------------------------------------


def pad(length: float = 12.0) -> np.ndarray:
    track = np.zeros(int(length * RATE))
    chords = [(45, 52, 60, 64, 71), (41, 48, 57, 64, 67), (43, 50, 59, 62, 69)]
    each = length / len(chords)
    for number, chord in enumerate(chords):
        t = seconds(each + 2.5)
        swell = np.minimum(1, t / 2.0) * np.minimum(1, (t[-1] - t) / 2.5)
        for note in chord:
            for detune in (-0.08, 0.0, 0.09):
                voice = low_pass(2 * ((t * hertz(note + detune) + RNG.random()) % 1) - 1, 900)
                put(track, number * each, voice * swell, 0.05)
    air = low_pass(RNG.standard_normal(len(track)), 500)
    return track + 0.03 * air


def finished(track: np.ndarray) -> np.ndarray:
    """A little room, soft ends, and the same loudness for all."""
    for delay, level in ((0.031, 0.25), (0.047, 0.2), (0.089, 0.14), (0.131, 0.1)):
        shift = int(delay * RATE)
        track = track + level * np.concatenate([np.zeros(shift), track[:-shift]])
    fade = int(0.05 * RATE)
    track[:fade] *= np.linspace(0, 1, fade)
    track[-fade:] *= np.linspace(1, 0, fade)
    return track / np.abs(track).max() * 0.7


def main() -> None:
    pieces = {"techno": finished(techno()), "waltz": finished(waltz()), "pad": finished(pad())}
    quiet = np.zeros(4 * RATE)
    in_a_row = [pieces["techno"], finished(waltz(11.6)), quiet, pieces["pad"]]
    pieces["three-in-a-row"] = np.concatenate(in_a_row)
    for name, sound in pieces.items():
        soundfile.write(  # Opus in an Ogg
            Path(__file__).with_name(f"{name}.ogg"),
            sound.astype(np.float32),
            RATE,
            format="OGG",
            subtype="OPUS",
            compression_level=COMPRESSION,
        )


if __name__ == "__main__":
    main()
