"""The log-mel spectrogram against librosa's, whose numbers are in `tests/data/musicnn_original.npz`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shared.media.mel import BANDS, RATE, band_hertz, log_mel, mel_filters
from tests.shared.engines.audio.test_musicnn import signal

ORIGINAL = np.load(Path(__file__).parents[2] / "data" / "musicnn_original.npz")


def test_the_filters_are_librosas() -> None:
    assert mel_filters().shape == (96, 257)
    np.testing.assert_allclose(mel_filters(), ORIGINAL["filters"], atol=1e-8)


def test_the_spectrogram_is_librosas() -> None:
    sound = signal()
    for window, expected in zip((sound[: 3 * RATE], sound[3 * RATE :]), ORIGINAL["log_mel"], strict=True):
        found = log_mel(window)
        assert found.dtype == np.float32
        assert found.shape == (188, BANDS)
        np.testing.assert_allclose(found[:187:6], expected, atol=2e-6)


@pytest.mark.parametrize("hertz", [100, 440, 1000, 3000, 7000])
def test_a_tone_is_loudest_in_its_band(hertz: int) -> None:
    tone = np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE).astype(np.float32)
    loudest = band_hertz()[log_mel(tone).mean(0).argmax()]
    assert abs(loudest - hertz) <= max(40, 0.05 * hertz)


@pytest.mark.parametrize("samples", [1, 2, 255, 256, 257, 511, 512, 513])
def test_short_sounds_have_a_spectrogram_too(samples: int) -> None:
    found = log_mel(np.ones(samples, np.float32))
    assert found.shape[0] >= 1
    assert np.isfinite(found).all()
    assert (log_mel(np.zeros(samples, np.float32)) == 0).all()
