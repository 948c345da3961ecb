"""What a style is, and General MIDI's drums and instruments by what they do in it."""

from __future__ import annotations

from dataclasses import dataclass

OTHER = "Other"
"""Genre of what is none of the five."""

# General MIDI's drums, by what they do in these ensembles.
SCRAPER = (73, 73, 74, 69, 70, 82)
SHAKER = (70, 82, 69, 54, 42)
CLAVE = (75, 75, 76, 37, 77)
BELL = (56, 56, 67, 53, 51)
HIGH_HAND, LOW_HAND = (60, 60, 63, 62, 65), (61, 61, 64, 66)
SLAP, OPEN, LOW = (62, 62, 60, 65), (63, 63, 60), (64, 64, 61, 66)
SHELL = (65, 37, 51, 42, 76)
STICK, SKIN = (38, 40, 65, 37), (64, 66, 45, 41, 43)
KICK, SNARE, HAT, OPEN_HAT = (36, 35), (38, 40, 37), (42, 44), (46,)

# General MIDI's instruments, counted from 0.
PIANO, ACCORDION, ORGAN = (0, 1, 2, 3, 4), (21, 21, 23, 22), (16, 17, 18)
NYLON, STEEL, ELECTRIC = (24, 24), (25, 25), (26, 27, 28)
BRASS, SAXES, FLUTE, SYNTH = (61, 56, 57, 62), (65, 66, 64), (73, 71, 72), (80, 81, 87, 62)
STRINGS, PAD = (48, 49), (50, 89, 52)
UPRIGHT, FINGERED = (32, 32, 33), (33, 33, 34, 39, 32)
ANYTHING = (
    *PIANO,
    *ACCORDION,
    *ORGAN,
    *NYLON,
    *STEEL,
    *ELECTRIC,
    *BRASS,
    *SAXES,
    *FLUTE,
    *SYNTH,
    *STRINGS,
    11,
    12,
    105,
)


@dataclass(frozen=True)
class Line:
    """A part of the percussion: drums to choose from, rhythms to choose from, and how often it is there at all."""

    drums: tuple[int, ...]
    rhythms: tuple[str, ...]
    share: float = 0.85


@dataclass(frozen=True)
class Part:
    """An instrument's part. `notes` are places in the chord, one for each stroke in turn: 0 root, 1 third, 2 fifth, 3
    octave, -1 the root of the chord that comes next, and `c` the whole chord, `o` the root and its octave."""

    instruments: tuple[int, ...]
    rhythms: tuple[tuple[str, str], ...]
    """Strokes, and what they play, blank-separated and repeated as needed."""
    length: float = 0.9
    """Of the way to the next stroke."""
    octave: int = 4
    share: float = 0.8


@dataclass(frozen=True)
class Style:
    """A genre, or one manner of it."""

    genre: str
    tempo: tuple[float, float]
    percussion: tuple[Line, ...]
    bass: Part
    comping: tuple[Part, ...]
    melody: tuple[tuple[int, ...], tuple[str, ...]]
    """Instruments, and rhythms of phrases."""
    progressions: tuple[str, ...]
    """Roman numerals, small for minor; a bar each."""
    steps: int = 16
    swing: float = 0.0
    """How far every second sixteenth is late, in sixteenths."""


MAJOR = ("I IV V I", "I V V I", "I IV I V", "I vi ii V", "IV I V I", "I I V V V V I I")
MINOR = ("i iv V i", "i VII VI V", "i V V i", "i VI VII i", "i iv i V", "i i V V V V i i")
EITHER = (*MAJOR, *MINOR)
