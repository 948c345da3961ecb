"""Generated music: what the patterns say, valid MIDI, parts that share nothing, and sound where it can be made here."""

from __future__ import annotations

import csv
import io
import random
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from shutil import which
from string import ascii_lowercase

import numpy as np
import pytest
import soundfile

from finetune.latin.synthesis import __main__ as command
from finetune.latin.synthesis import grooves, plan, rendering
from finetune.latin.synthesis.arrange import arrange, pitches, progression, strokes, valid_rhythm, varied
from finetune.latin.synthesis.augmentation import augmented
from finetune.latin.synthesis.midi import DRUMS, TICKS, Note, Song, midi_file
from finetune.latin.synthesis.other_patterns import OTHERS
from finetune.latin.synthesis.patterns import GENRES, LATIN
from finetune.latin.synthesis.plan import Clip
from finetune.latin.synthesis.style import OTHER, Style
from shared.errors import SuiteError

STYLES = [*(style for styles in LATIN.values() for style in styles), *OTHERS]
PARTS = ("train", "validation", "test")
MISSING = ", ".join(
    [program for program in ("mma", "fluidsynth") if not which(program)]
    + [name for name, (file, _) in rendering.SOUNDFONTS.items() if not Path(file).is_file()]
)
needs_programs = pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {MISSING} ({grooves.PACKAGES})")


# -- notes -----------------------------------------------------------------------------------------


def read_midi(content: bytes) -> tuple[list[tuple[int, int, int]], dict[int, int]]:
    """Another reading of the format than the writer's: (tick, channel, pitch) of each note that starts, and programs.

    Fails for a track whose length is not as said, and for a note that does not end.
    """
    file = io.BytesIO(content)
    assert file.read(14) == b"MThd\x00\x00\x00\x06\x00\x00\x00\x01" + TICKS.to_bytes(2, "big")
    assert file.read(4) == b"MTrk"
    assert int.from_bytes(file.read(4), "big") == len(content) - 22
    at, notes, sounding, programs = 0, [], Counter[tuple[int, int]](), {}
    while file.tell() < len(content):
        delta = 0
        while (byte := file.read(1)[0]) & 0x80:
            delta = delta << 7 | byte & 0x7F
        at += delta << 7 | byte
        status = file.read(1)[0]
        if status == 0xFF:
            kind, size = file.read(2)
            file.read(size)
            if kind == 0x2F:
                break
        elif status >> 4 == 0xC:
            programs[status & 15] = file.read(1)[0]
        else:
            first, _ = file.read(2)
            if status >> 4 == 9:
                notes.append((at, status & 15, first))
                sounding[status & 15, first] += 1
            elif status >> 4 == 8:
                sounding[status & 15, first] -= 1
    assert file.tell() == len(content)
    assert not +sounding
    return notes, programs


def test_a_file_says_what_was_written() -> None:
    notes = [Note(0, 1, 60, 90, 0), Note(40, 2.5, 36, 127, DRUMS), Note(1, 1, 60, 1, 0)]
    found, programs = read_midi(midi_file(Song(notes, 120, {0: 21}, {0: 100})))
    assert found == [(0, 0, 60), (TICKS, 0, 60), (40 * TICKS, DRUMS, 36)]
    assert programs == {0: 21}


@pytest.mark.parametrize("wrong", [{"pitch": 128}, {"velocity": 0}, {"channel": 16}, {"length": 0.0}, {"pitch": -1}])
def test_what_midi_cannot_say_is_refused(wrong: dict[str, int]) -> None:
    values = {"start": 0.0, "length": 1.0, "pitch": 60, "velocity": 80, "channel": 0, **wrong}
    with pytest.raises(ValueError, match="no note of MIDI"):
        midi_file(Song([Note(**values)], 120, {}, {}))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.genre)
def test_every_pattern_fits_its_bar(style: Style) -> None:
    rhythms = [rhythm for line in style.percussion for rhythm in line.rhythms]
    rhythms += [rhythm for part in (style.bass, *style.comping) for rhythm, _ in part.rhythms]
    assert all(valid_rhythm(rhythm, style.steps) for rhythm in [*rhythms, *style.melody[1]])
    assert all(35 <= drum <= 82 for line in style.percussion for drum in line.drums)
    assert style.tempo[0] < style.tempo[1]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.genre)
def test_every_style_is_valid_midi_that_lasts(style: Style) -> None:
    for seed in range(10):
        song = arrange(style, 8.5, random.Random(seed))
        notes, programs = read_midi(midi_file(song))
        assert notes[-1][0] / TICKS * 60 / song.tempo > 7
        assert {channel for _, channel, _ in notes} - {DRUMS} <= set(programs)
        assert style.tempo[0] <= song.tempo <= style.tempo[1]


def test_the_same_seed_makes_the_same_song_and_another_another() -> None:
    one, same, other = (midi_file(arrange(LATIN["Salsa"][0], 8, random.Random(seed))) for seed in (1, 1, 2))
    assert one == same != other


def test_chords_and_places_in_them() -> None:
    assert progression("i iv V", 9, 3) == [(9, True), (2, True), (4, False), (9, True)]
    assert pitches("c", (0, False), (7, False), 4, 0) == [60, 64, 67]
    assert pitches("c", (0, True), (7, False), 4, 1) == [51, 55, 60]
    assert pitches("-1", (0, False), (7, False), 2, 0) == [43]
    assert pitches("o", (2, False), (7, False), 4, 0) == [62, 74]
    assert [at for at, _ in strokes("9...8..." * 4, STYLES[0], 1)] == [4, 5, 6, 7]
    assert len(varied("9.9." * 4, random.Random(1))) == 16


def test_a_room_and_noise_change_a_sound_but_not_its_length() -> None:
    sound = np.sin(np.arange(22_050) / 20).astype(np.float32) * 0.3
    heard = [augmented(sound, 22_050, np.random.default_rng(seed)) for seed in range(8)]
    assert all(one.shape == sound.shape and one.dtype == np.float32 for one in heard)
    assert all(np.isfinite(one).all() and np.abs(one).max() <= 1 for one in heard)
    assert len({one.tobytes() for one in heard}) == 8
    assert np.array_equal(heard[0], augmented(sound, 22_050, np.random.default_rng(0)))


# -- parts -----------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder like MMA's, since that may not be here."""
    for name in (
        *grooves.LATIN_FILES,
        *(f"stdlib/kind-{letter}" for letter in ascii_lowercase),
        "stdlib/chacha",
        "zoom/count",
    ):
        file = tmp_path / f"{name}.mma"
        file.parent.mkdir(exist_ok=True)
        title = file.stem.title()
        file.write_text(f"Time 4\nDefGroove {title} Of a test.\nDefGroove {title}Intro\nDefGroove {title}Fill\n")
    monkeypatch.setattr(grooves, "LIBRARY", tmp_path)
    fonts = {part: [n for n, (_, of) in rendering.SOUNDFONTS.items() if of == part] for part in PARTS}
    monkeypatch.setattr(plan, "soundfonts", fonts.__getitem__)
    grooves.groove_files.cache_clear()
    grooves.grooves_of.cache_clear()
    yield tmp_path
    grooves.groove_files.cache_clear()
    grooves.grooves_of.cache_clear()


def check_parts(clips: list[Clip]) -> None:
    for fact in ("groove_file", "soundfont"):
        parts = {part: {getattr(clip, fact) for clip in clips if clip.split == part} - {""} for part in PARTS}
        assert all(parts.values())
        assert all(not parts[a] & parts[b] for a, b in product(PARTS, PARTS) if a < b), fact


def test_no_groove_file_and_no_soundfont_is_in_two_parts(library: Path) -> None:
    clips = list(plan.plan(1000, seed=5))
    check_parts(clips)
    assert [clip.number for clip in clips] == list(range(len(clips)))
    assert abs(len(clips) - 1000) < 60
    assert {clip.genre for clip in clips} == {*GENRES, OTHER}
    assert {clip.genre for clip in clips if clip.source == "mma"} == {"Salsa", "Merengue", OTHER}
    assert not any(clip.genre == "Merengue" and clip.source == "mma" and clip.split != "test" for clip in clips)
    assert clips == list(plan.plan(1000, seed=5)) != list(plan.plan(1000, seed=6))


def test_relatives_introductions_and_fills_are_left_out(library: Path) -> None:
    files = grooves.groove_files()
    assert "stdlib/chacha" not in files
    assert "zoom/count" not in files
    assert grooves.grooves_of("stdlib/salsa") == ("Salsa",)
    assert Counter(part for genre, part in files.values() if genre == OTHER).keys() == set(PARTS)


def test_files_of_one_rhythm_are_on_one_side(library: Path) -> None:
    for name in ("casio/polka1", "stdlib/polka", "kara/Polka2"):
        (library / name).parent.mkdir(exist_ok=True)
        (library / f"{name}.mma").write_text("DefGroove Polka\n")
    files = grooves.groove_files()
    assert len({files[name] for name in ("casio/polka1", "stdlib/polka", "kara/Polka2")}) == 1


def test_a_machine_without_the_programs_is_told_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grooves, "LIBRARY", tmp_path / "nothing")
    with pytest.raises(SuiteError, match=r"MMA is not installed.*apt-get install.* mma fluidsynth"):
        grooves.require()
    monkeypatch.setattr(rendering, "SOUNDFONTS", {"Gone": (str(tmp_path / "gone.sf2"), "test")})
    with pytest.raises(SuiteError, match=r"soundfonts are missing \(Gone\).*apt-get install"):
        rendering.soundfonts("test")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SuiteError, match=r"fluidsynth is not installed.*apt-get install"):
        rendering.render(tmp_path / "a.mid", "Gone", tmp_path, 1)


# -- sound -----------------------------------------------------------------------------------------


@needs_programs
def test_the_real_library_divides_as_promised() -> None:
    check_parts(list(plan.plan(1500, seed=1)))
    assert set(grooves.LATIN_FILES) <= set(grooves.groove_files())


@needs_programs
@pytest.mark.parametrize("name", ["stdlib/merengue", "stdlib/waltz"])
def test_mma_plays_a_groove(tmp_path: Path, name: str) -> None:
    sound = rendering.render(grooves.play(name, 4, random.Random(1), tmp_path), "TimGM6mb", tmp_path, 4)
    assert len(sound) == 4 * rendering.RATE
    assert np.abs(sound).max() > 0.01


@needs_programs
def test_clips_and_their_table_are_written_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    three = [
        Clip(0, "Cumbia", "own", "", "TimGM6mb", "validation"),
        Clip(1, "Salsa", "mma", "stdlib/salsa", "GMbank", "test"),
        Clip(2, OTHER, "own", "", "TimGM6mb", "validation"),
    ]
    monkeypatch.setattr(command, "plan", lambda clips, seed: iter(three))
    command.synthesize(tmp_path, 3, 4)
    assert "3 of 3 clips" in capsys.readouterr().err
    with (tmp_path / "clips.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] | {"soundfont": ""} == {
        "file": "Salsa/00001.flac",
        "number": "1",
        "genre": "Salsa",
        "source": "mma",
        "groove_file": "stdlib/salsa",
        "soundfont": "",
        "split": "test",
    }
    for row in rows:
        info = soundfile.info(tmp_path / row["file"])
        assert (info.duration, info.channels) == (pytest.approx(6), 1)
    before = (tmp_path / rows[0]["file"]).read_bytes()
    (tmp_path / rows[0]["file"]).unlink()
    times = (tmp_path / rows[1]["file"]).stat().st_mtime_ns
    command.synthesize(tmp_path, 3, 4)
    assert (tmp_path / rows[0]["file"]).read_bytes() == before  # our own music is the same each time
    assert (tmp_path / rows[1]["file"]).stat().st_mtime_ns == times
