"""The log-mel spectrogram that musicnn hears, and that the page draws.

The parameters are those of Pons & Serra 2019 (musicnn): 16 kHz, windows of 512 samples every 256, 96 mel bands,
log10(10000 · power + 1). The filters follow Slaney's Auditory Toolbox (1998): linear below 1 kHz, logarithmic above,
triangles of equal area. Tests compare all of it with librosa's.
"""

from __future__ import annotations

from functools import cache

import numpy as np

RATE = 16_000
FFT, HOP, BANDS = 512, 256, 96

HERTZ_PER_MEL = 200 / 3
"""Below the break."""
BREAK_HERTZ, BREAK_MEL = 1000.0, 15.0
LOG_STEP = np.log(6.4) / 27
"""Above the break, 27 mels reach 6.4 times as high."""


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Mono float32 at 16 kHz in [-1, 1] → float32, shape (1 + samples // 256, 96).

    Frame i is centred at sample 256 · i; the edges are mirrored, as librosa did when musicnn was trained.
    """
    if len(samples) <= FFT // 2:
        samples = np.resize(samples, FFT)
    padded = np.pad(samples, FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP]
    spectrum = np.fft.rfft(frames * _hann(), axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return np.log10(10_000 * (power @ mel_filters().T) + 1)


@cache
def _hann() -> np.ndarray:
    """Periodic Hann window, as for spectra."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)


@cache
def mel_filters() -> np.ndarray:
    """float32, shape (96, 257): the weight of each frequency of the spectrum in each band."""
    frequencies = np.arange(FFT // 2 + 1) * RATE / FFT
    edges = _hertz(np.linspace(0, _mel(RATE / 2), BANDS + 2))
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * 2 / (high - low)).astype(np.float32)


def band_hertz() -> np.ndarray:
    """Centre frequency of each band, shape (96,)."""
    return _hertz(np.linspace(0, _mel(RATE / 2), BANDS + 2))[1:-1]


def _mel(hertz: float) -> float:
    if hertz < BREAK_HERTZ:
        return hertz / HERTZ_PER_MEL
    return BREAK_MEL + float(np.log(hertz / BREAK_HERTZ)) / LOG_STEP


def _hertz(mel: np.ndarray) -> np.ndarray:
    logarithmic = BREAK_HERTZ * np.exp(LOG_STEP * (np.maximum(mel, BREAK_MEL) - BREAK_MEL))
    return np.where(mel < BREAK_MEL, mel * HERTZ_PER_MEL, logarithmic)
