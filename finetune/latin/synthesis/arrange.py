"""A style → a song of it: key, chords, tempo, instruments and rhythms drawn at random."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from finetune.latin.synthesis.midi import DRUMS, Note, Song
from finetune.latin.synthesis.style import ANYTHING, Line, Part, Style

STRANGE_INSTRUMENT = 0.25
"""Share of parts whose instrument is any at all: rhythm should count, not the sound of one accordion."""
STRANGE_DRUM = 0.12
ALL_DRUMS = tuple(range(35, 82))
MISSED, ADDED = 0.05, 0.03
"""Share of a rhythm's strokes that are left out in a song, and of its rests that are filled in, softly."""
DEGREES = {"I": 0, "II": 2, "III": 4, "IV": 5, "V": 7, "VI": 9, "VII": 11}
MINOR_DEGREES = {**DEGREES, "III": 3, "VI": 8, "VII": 10}

Chord = tuple[int, bool]
"""Its root as a pitch class 0 to 11, and whether it is minor."""


def arrange(style: Style, seconds: float, chance: random.Random, tempo: float = 0.0) -> Song:
    """A song that lasts at least so long. The same `chance` makes the same song."""
    tempo = tempo or chance.uniform(*style.tempo)
    beats = style.steps / 4
    bars = int(seconds * tempo / 60 / beats) + 2
    chords = progression(chance.choice(style.progressions), chance.randrange(12), bars)
    notes: list[Note] = []
    for line in style.percussion:
        if chance.random() < line.share:
            notes += drums(line, style, bars, chance)
    programs, levels = {}, {DRUMS: chance.randint(75, 120)}
    parts: list[tuple[Part, int]] = [(style.bass, chance.randint(85, 127))]
    parts += [(part, chance.randint(60, 115)) for part in style.comping]
    for channel, (part, level) in enumerate(parts):
        if chance.random() < part.share:
            programs[channel], levels[channel] = instrument(part.instruments, chance, bass=channel == 0), level
            notes += chordal(part, style, chords, channel, chance)
    if chance.random() < 0.6:
        instruments, rhythms = style.melody
        programs[8], levels[8] = instrument(instruments, chance), chance.randint(70, 120)
        notes += melody(rhythms, style, chords, 8, chance)
    return Song([_human(note, chance) for note in notes], tempo, programs, levels)


def instrument(choice: Sequence[int], chance: random.Random, *, bass: bool = False) -> int:
    if chance.random() < STRANGE_INSTRUMENT:
        return chance.choice((32, 33, 34, 35, 36, 38, 39, 43, 58)) if bass else chance.choice(ANYTHING)
    return chance.choice(choice)


def progression(numerals: str, key: int, bars: int) -> list[Chord]:
    """A chord for each bar and one more, repeated as needed. `V` of a minor key is major, as it is played."""
    names = numerals.split()
    degrees = MINOR_DEGREES if "i" in names else DEGREES
    found = [((key + degrees[name.upper()]) % 12, name.islower()) for name in names]
    return [found[bar % len(found)] for bar in range(bars + 1)]


def drums(line: Line, style: Style, bars: int, chance: random.Random) -> list[Note]:
    drum = chance.choice(ALL_DRUMS if chance.random() < STRANGE_DRUM else line.drums)
    rhythm = varied(chance.choice(line.rhythms), chance)
    level = chance.uniform(0.6, 1.1)
    return [
        Note(at, 0.2, drum, _velocity(strength * level), DRUMS)
        for bar in range(bars)
        for at, strength in strokes(rhythm, style, bar)
    ]


def varied(rhythm: str, chance: random.Random) -> str:
    """A rhythm as one player has it: some strokes missing, some more."""
    return "".join(
        ("." if chance.random() < MISSED else step) if step != "." else ("3" if chance.random() < ADDED else ".")
        for step in rhythm
    )


def strokes(rhythm: str, style: Style, bar: int) -> list[tuple[float, int]]:
    """Beat and strength of each stroke of one bar; a rhythm of two bars is in turns."""
    first = bar * style.steps % len(rhythm)
    steps = rhythm[first : first + style.steps]
    return [
        ((bar * style.steps + place + (style.swing * 0.67 if place % 2 else 0)) / 4, int(step))
        for place, step in enumerate(steps)
        if step != "."
    ]


def chordal(part: Part, style: Style, chords: Sequence[Chord], channel: int, chance: random.Random) -> list[Note]:
    """Bass or comping."""
    rhythm, played = chance.choice(part.rhythms)
    rhythm, places = (rhythm if part.octave < 3 else varied(rhythm, chance)), played.split()
    octave = part.octave + (chance.choice((-1, 0, 0, 0, 1)) if part.octave > 2 else 0)
    inversion = chance.randrange(3)
    found: list[Note] = []
    turn = 0
    for bar in range(len(chords) - 1):
        here = strokes(rhythm, style, bar)
        ends = [*(at for at, _ in here[1:]), (bar + 1) * style.steps / 4][: len(here)]
        if len(rhythm) == style.steps:
            turn = 0
        for (at, strength), end in zip(here, ends, strict=True):
            place = places[turn % len(places)]
            turn += 1
            length = max(0.1, min((end - at) * part.length, 4.0))
            struck = pitches(place, chords[bar], chords[bar + 1], octave, inversion)
            found += [Note(at, length, pitch, _velocity(strength), channel) for pitch in struck]
    return found


def pitches(place: str, chord: Chord, following: Chord, octave: int, inversion: int) -> list[int]:
    root, minor = following if place == "-1" else chord
    base = 12 * (octave + 1) + (root if octave > 2 or root < 8 else root - 12)
    triad = [0, 3 if minor else 4, 7]
    if place == "c":
        notes = triad[inversion:] + [12 + note for note in triad[:inversion]]
        return [base + note - (12 if inversion else 0) for note in notes]
    if place == "o":
        return [base, base + 12]
    return [base + (0 if place == "-1" else [*triad, 12][int(place)])]


def melody(
    rhythms: Sequence[str], style: Style, chords: Sequence[Chord], channel: int, chance: random.Random
) -> list[Note]:
    """Phrases that walk along the scale and meet a note of the chord on each beat; some bars are silent."""
    key, minor = chords[0]
    scale = [(key + step) % 12 for step in ((0, 2, 3, 5, 7, 8, 10) if minor else (0, 2, 4, 5, 7, 9, 11))]
    pitch, third = chance.randint(67, 79), chance.random() < 0.3
    chosen = chance.sample(list(rhythms), k=min(2, len(rhythms)))
    found: list[Note] = []
    for bar in range(len(chords) - 1):
        if chance.random() < 0.15:
            continue
        here = strokes(chosen[bar % len(chosen)], style, bar)
        ends = [*(at for at, _ in here[1:]), (bar + 1) * style.steps / 4][: len(here)]
        root, small = chords[bar]
        triad = {root, (root + (3 if small else 4)) % 12, (root + 7) % 12}
        for (at, strength), end in zip(here, ends, strict=True):
            allowed = triad if at % 1 == 0 else {*scale}
            pitch += chance.choice((-4, -3, -2, -1, -1, 1, 1, 2, 3, 4))
            pitch = min(max(pitch, 60), 86)
            pitch = next(p for step in range(12) for p in (pitch + step, pitch - step) if p % 12 in allowed)
            length = min(end - at, 1.5) * 0.9
            found.append(Note(at, length, pitch, _velocity(strength), channel))
            if third:
                below = next(p for p in range(pitch - 3, pitch - 12, -1) if p % 12 in scale)
                found.append(Note(at, length, below, _velocity(strength - 1), channel))
    return found


def _velocity(strength: float) -> int:
    return min(127, max(1, round(13 * strength)))


def _human(note: Note, chance: random.Random) -> Note:
    start = max(0.0, note.start + chance.gauss(0, 0.008))
    velocity = min(127, max(1, round(note.velocity * chance.uniform(0.85, 1.1))))
    return Note(start, note.length, note.pitch, velocity, note.channel)


def valid_rhythm(rhythm: str, steps: int) -> bool:
    return bool(re.fullmatch(r"[.1-9]+", rhythm)) and len(rhythm) % steps == 0
