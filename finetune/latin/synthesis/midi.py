"""Notes → a standard MIDI file."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TICKS = 480
"""Of a beat."""
DRUMS = 9
"""General MIDI's channel of percussion, counted from 0: there the pitch says which drum."""


@dataclass(frozen=True, slots=True)
class Note:
    """`start` and `length` in beats, `pitch` and `velocity` 0 to 127, `channel` 0 to 15."""

    start: float
    length: float
    pitch: int
    velocity: int
    channel: int


@dataclass(frozen=True)
class Song:
    notes: Sequence[Note]
    tempo: float
    """Beats a minute."""
    programs: Mapping[int, int]
    """Channel → General MIDI's number of its instrument, 0 to 127."""
    levels: Mapping[int, int]
    """Channel → its volume, 0 to 127."""


def midi_file(song: Song) -> bytes:
    """One track (format 0). Raises `ValueError` for a note that MIDI cannot say."""
    events: list[tuple[int, int, bytes]] = [
        (0, 0, b"\xff\x51\x03" + round(60e6 / song.tempo).to_bytes(3, "big")),
        *((0, 0, bytes([0xC0 | channel, program])) for channel, program in song.programs.items()),
        *((0, 0, bytes([0xB0 | channel, 7, level])) for channel, level in song.levels.items()),
    ]
    for note in song.notes:
        if not (0 <= note.pitch < 128 and 1 <= note.velocity < 128 and 0 <= note.channel < 16 and note.length > 0):
            raise ValueError(f"{note} is no note of MIDI")
        start = max(0, round(note.start * TICKS))
        end = max(start + 1, round((note.start + note.length) * TICKS))
        events.append((start, 2, bytes([0x90 | note.channel, note.pitch, note.velocity])))
        # Before what starts then, or a note that is struck again would be silenced at once.
        events.append((end, 1, bytes([0x80 | note.channel, note.pitch, 0])))
    events.sort(key=lambda event: event[:2])
    track, now = bytearray(), 0
    for at, _, message in events:
        track += _variable_length(at - now) + message
        now = at
    track += b"\x00\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS) + b"MTrk" + struct.pack(">I", len(track)) + bytes(track)


def _variable_length(value: int) -> bytes:
    """Seven bits a byte, the highest first; all but the last with their top bit set."""
    found = [value & 0x7F]
    while value := value >> 7:
        found.append(0x80 | value & 0x7F)
    return bytes(reversed(found))
