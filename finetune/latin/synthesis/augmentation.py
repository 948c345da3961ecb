"""What lies between an instrument and a recording of it: a room, a microphone, a loudness, some noise."""

from __future__ import annotations

import numpy as np
from scipy.signal import fftconvolve


def augmented(sound: np.ndarray, rate: int, chance: np.random.Generator) -> np.ndarray:
    """Mono float32 in [-1, 1] → the same length, each effect there or not."""
    if chance.random() < 0.6:
        sound = in_a_room(sound, rate, chance)
    if chance.random() < 0.7:
        sound = equalized(sound, rate, chance)
    if chance.random() < 0.4:
        sound = np.tanh(chance.uniform(1, 4) * sound / (np.abs(sound).max() + 1e-9))
    if chance.random() < 0.4:
        sound = with_noise(sound, chance)
    level = 10 ** (chance.uniform(-22, -10) / 20)
    sound = sound * level / (np.sqrt(np.mean(np.square(sound))) + 1e-9)
    return np.clip(sound, -1, 1).astype(np.float32)


def in_a_room(sound: np.ndarray, rate: int, chance: np.random.Generator) -> np.ndarray:
    """Noise that dies away over 0.15 to 1.2 s stands for the reflections of a room (Moorer 1979)."""
    length = chance.uniform(0.15, 1.2)
    t = np.arange(int(length * rate)) / rate
    tail = chance.standard_normal(len(t)) * np.exp(-6.9 * t / length)
    tail /= np.sqrt(np.sum(tail**2)) + 1e-9
    wet = fftconvolve(sound, tail)[: len(sound)]
    return sound + chance.uniform(0.05, 0.6) * wet


def equalized(sound: np.ndarray, rate: int, chance: np.random.Generator) -> np.ndarray:
    """A smooth curve of at most 9 dB up or down, and sometimes no highs or no lows, as of a small speaker."""
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / rate)
    knots = np.array([60, 150, 400, 1000, 2500, 6000])
    gains = chance.uniform(-9, 9, len(knots))
    curve = np.interp(np.log(np.maximum(hertz, 20)), np.log(knots), gains)
    response = 10 ** (curve / 20)
    if chance.random() < 0.25:
        response = response / np.sqrt(1 + (hertz / chance.uniform(2500, 7000)) ** 4)
    if chance.random() < 0.2:
        response = response / np.sqrt(1 + (chance.uniform(80, 300) / np.maximum(hertz, 1)) ** 4)
    return np.fft.irfft(spectrum * response, len(sound))


def with_noise(sound: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Noise from white to brown, 15 to 40 dB under the music."""
    noise = np.fft.rfft(chance.standard_normal(len(sound)))
    noise /= np.maximum(np.arange(len(noise)), 1) ** chance.uniform(0, 1)
    shaped = np.fft.irfft(noise, len(sound))
    level = np.sqrt(np.mean(sound**2)) * 10 ** (-chance.uniform(15, 40) / 20)
    return sound + shaped * level / (np.sqrt(np.mean(shaped**2)) + 1e-9)
