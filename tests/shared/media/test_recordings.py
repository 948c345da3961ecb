"""Decoding: every kind of file that people have, and every kind of damage."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from shared.errors import InvalidInput
from shared.media.recordings import Recording, Resampler, Window, clock, windows
from tests.recordings import RATE, REFUSED, broken, endless_flac, tone, write

TARGET = 16_000


def heard(path: Path, most_seconds: float = 600.0) -> tuple[np.ndarray, Recording]:
    with Recording(path, most_seconds) as recording:
        return np.concatenate(list(recording.mono(TARGET))), recording


def pitch(sound: np.ndarray) -> float:
    """Hz of the loudest frequency."""
    return float(np.abs(np.fft.rfft(sound * np.hanning(len(sound)))).argmax() * TARGET / len(sound))


KINDS: list[tuple[str, int, int, dict[str, Any], str]] = [
    ("a.wav", 44_100, 2, {}, "WAV, 16 bit, 44.1 kHz, 2 channels"),
    ("a.wav", 8_000, 1, {"subtype": "PCM_U8"}, "WAV, u8 bit, 8 kHz, 1 channel"),
    ("a.wav", 192_000, 2, {"subtype": "PCM_24"}, "WAV, 24 bit, 192 kHz, 2 channels"),
    ("a.wav", 48_000, 6, {"subtype": "FLOAT"}, "WAV, 48 kHz, 6 channels"),
    ("a.wav", 44_101, 1, {"subtype": "DOUBLE"}, "WAV, 44.101 kHz, 1 channel"),
    ("a.flac", 96_000, 6, {"subtype": "PCM_24"}, "FLAC, 24 bit, 96 kHz, 6 channels"),
    ("a.ogg", 32_000, 2, {}, "OGG, 32 kHz, 2 channels"),
    ("a.opus", 48_000, 2, {"format": "OGG", "subtype": "OPUS"}, "Opus, 48 kHz, 2 channels"),
    ("a.mp3", 44_100, 2, {}, "MP3, 44.1 kHz, 2 channels"),
    ("a.mp3", 8_000, 1, {}, "MP3, 8 kHz, 1 channel"),
    ("a.raw", 44_100, 1, {"format": "WAV"}, "WAV, 16 bit, 44.1 kHz, 1 channel"),
    ("a.aiff", 22_050, 1, {}, "AIFF, 16 bit, 22.05 kHz, 1 channel"),
]


@pytest.mark.parametrize(("name", "rate", "channels", "options", "description"), KINDS)
def test_every_kind_of_file_sounds_the_same(
    tmp_path: Path, name: str, rate: int, channels: int, options: dict[str, Any], description: str
) -> None:
    sound, recording = heard(
        write(tmp_path / name, np.repeat(tone(2, rate)[:, None], channels, axis=1), rate, **options)
    )
    assert recording.description == description
    assert recording.warnings == []
    assert recording.seconds == pytest.approx(2, abs=0.05)
    assert sound.dtype == np.float32
    assert len(sound) == pytest.approx(2 * TARGET, abs=0.05 * TARGET)
    assert pitch(sound) == pytest.approx(440, abs=1)
    assert np.sqrt(np.mean(sound[2000:-2000] ** 2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.06)


def test_an_mp3_in_blocks_is_the_mp3_as_a_whole(tmp_path: Path) -> None:
    """It was not: after every block that soundfile reads, the decoder began anew."""
    path = write(tmp_path / "a.mp3", np.stack([tone(6), tone(6, hertz=660)], 1))
    whole, rate = soundfile.read(path, dtype="float32")
    sound, _ = heard(path)
    expected = resample_poly(whole.mean(axis=1), 160, 441)
    assert rate == RATE
    np.testing.assert_allclose(sound, expected, atol=1e-5)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left = tone(1)
    opposite, _ = heard(write(tmp_path / "a.wav", np.stack([left, -left], 1)))
    assert np.abs(opposite).max() < 1e-3
    one_of_two, _ = heard(write(tmp_path / "b.wav", np.stack([left, 0 * left], 1)))
    assert np.abs(one_of_two[2000:-2000]).max() == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize("source", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 192_000, 44_101])
def test_resampling_in_pieces_is_resampling_of_the_whole(source: int) -> None:
    sound = np.random.default_rng(0).standard_normal(source * 2 + 7).astype(np.float32)
    resample = Resampler(source, TARGET)
    pieces = [resample(piece) for piece in np.array_split(sound, 9)]
    found = np.concatenate([*pieces, resample.rest()])
    ratio = Fraction(TARGET, source).limit_denominator(1000)
    expected = resample_poly(sound, ratio.numerator, ratio.denominator)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_recording_is_refused_in_words(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        heard(broken(tmp_path)[name])
    assert caught.value.field == "audio"
    assert REFUSED[name] in caught.value.message


def test_a_file_that_has_gone_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.wav", tmp_path):
        with pytest.raises(InvalidInput):
            Recording(path, 60)


@pytest.mark.parametrize(("name", "seconds"), [("a.mp3", (3.5, 4.1)), ("a.flac", (2, 4.5)), ("a.wav", (3.9, 4.1))])
def test_of_a_file_cut_short_what_is_there_is_heard(tmp_path: Path, name: str, seconds: tuple[float, float]) -> None:
    whole = write(tmp_path / name, np.random.default_rng(0).uniform(-0.3, 0.3, RATE * 8)).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    sound, recording = heard(tmp_path / name)
    assert seconds[0] <= recording.seconds <= seconds[1]
    assert np.isfinite(sound).all()
    # A wav's length is taken from the file where its header says more, so nothing is missed there.
    assert ["damaged or cut short" in warning for warning in recording.warnings] == [True][: name != "a.wav"]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_damage_is_refused_or_heard(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    draw = np.random.default_rng(seed)
    kind = str(draw.choice(["mp3", "flac", "ogg", "wav"]))
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    content = bytearray(write(path, tone(1.5)).read_bytes())
    for place in draw.integers(0, len(content), 20):
        content[place] = draw.integers(256)
    path.write_bytes(content)
    try:
        sound, recording = heard(path, 20)
    except InvalidInput:
        return
    assert np.isfinite(sound).all()
    assert np.abs(sound).max(initial=0) < 1.5  # a resampler's filter may overshoot full scale
    assert recording.seconds <= 20


def test_tags_are_no_business_of_ours(tmp_path: Path) -> None:
    mp3 = write(tmp_path / "a.mp3", tone(2)).read_bytes()
    tag = b"ID3\x03\x00\x00\x00\x00\x10\x00TIT2\x7f\xff\xff\xff\x00\x00\x00<script>" + b"\xff" * 2030
    (tmp_path / "a.mp3").write_bytes(tag + mp3)
    _, recording = heard(tmp_path / "a.mp3")
    assert recording.seconds == pytest.approx(2, abs=0.1)


def test_what_is_not_a_number_is_silence_and_clipping_is_said(tmp_path: Path) -> None:
    sound = tone(2)
    sound[1000:1100], sound[5000] = np.nan, np.inf
    found, recording = heard(write(tmp_path / "a.wav", sound, subtype="FLOAT"))
    assert np.isfinite(found).all()
    assert recording.warnings == ["101 samples were not numbers and were taken for silence."]
    found, recording = heard(write(tmp_path / "b.wav", 50 * tone(2), subtype="FLOAT"))
    assert np.abs(found).max() < 1.5
    assert "clipped" in recording.warnings[0]


@pytest.mark.parametrize("claimed", [False, True])
def test_a_bomb_is_read_to_the_limit_in_bounded_memory(tmp_path: Path, claimed: bool) -> None:
    bomb = endless_flac(tmp_path / "bomb.flac", minutes=11, claimed=claimed)
    assert bomb.stat().st_size < 20_000  # of 11 MB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Recording(bomb, 600) as recording:
        count = sum(1 for _ in windows(recording.mono(TARGET), TARGET, 3, 3))
    assert count == 200
    assert recording.warnings == ["Only the first 10:00 were heard (SUITE_MAX_AUDIO_SECONDS)."]
    assert recording.expected_seconds == 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB; decoded it is 38 MB


# -- windows -------------------------------------------------------------------------------------


def cut(seconds: float, window: float = 3, hop: float = 3, rate: int = 100) -> list[Window]:
    """Windows of a sound whose samples count up from 1; blocks of 0.7 s."""
    sound = np.arange(1, int(seconds * rate) + 1, dtype=np.float32)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(sound), 70):
            yield sound[start : start + 70]

    return list(windows(blocks(), rate, window, hop))


def test_windows_follow_each_other_and_the_last_ends_with_the_recording() -> None:
    assert [(w.start, w.end) for w in cut(9)] == [(0, 3), (3, 6), (6, 9)]
    assert [(w.start, w.end) for w in cut(10)] == [(0, 3), (3, 6), (6, 9), (7, 10)]
    assert [(w.start, w.end) for w in cut(9.05)] == [(0, 3), (3, 6), (6, 9)]
    assert [(w.start, w.end) for w in cut(6, hop=1.5)] == [(0, 3), (1.5, 4.5), (3, 6)]
    assert [(w.start, w.end) for w in cut(9, window=1, hop=4)] == [(0, 1), (4, 5), (8, 9)]
    for window in cut(10):
        np.testing.assert_array_equal(window.samples, np.arange(300) + round(window.start * 100) + 1)


def test_what_is_shorter_than_a_window_is_repeated() -> None:
    (window,) = cut(1)
    assert (window.start, window.end, len(window.samples)) == (0, 1, 300)
    np.testing.assert_array_equal(window.samples[100:200], window.samples[:100])
    assert cut(0) == []


@given(seconds=st.floats(0.1, 30), window=st.floats(0.2, 5), hop=st.floats(0.2, 5))
def test_windows_are_of_one_length_and_reach_the_end(seconds: float, window: float, hop: float) -> None:
    found = cut(seconds, window, hop)
    assert {len(one.samples) for one in found} == {round(window * 100)}
    assert found[0].start == 0
    assert all(later.start > earlier.start for earlier, later in pairwise(found))
    assert found[-1].end <= int(seconds * 100) / 100 + 1e-9
    if hop <= window:
        assert found[-1].end > seconds - 0.12


def test_silence_is_under_a_thousandth() -> None:
    loud, soft = tone(3, TARGET, level=0.01), tone(3, TARGET, level=0.0005)
    assert [w.silent for w in windows([loud, soft, 0 * soft], TARGET, 3, 3)] == [False, True, True]


def test_times_are_written_in_minutes() -> None:
    assert [clock(s) for s in (0, 7.4, 60, 3599.9999999, 36_000)] == ["0:00", "0:07", "1:00", "60:00", "600:00"]
