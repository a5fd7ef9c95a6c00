"""Signals with known properties, for tests."""

import numpy as np


def tone(frequency: float, seconds: float, rate: int = 16_000, amplitude: float = 0.5):
    """A sine, float64 [n]."""
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def pitch(samples: np.ndarray, rate: int = 16_000) -> float:
    """The strongest frequency in hertz, to about half a bin."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


def hiss(seconds: float, seed: int = 0, amplitude: float = 0.1) -> np.ndarray:
    """White noise, float32 [n] at 16 kHz."""
    n = round(seconds * 16_000)
    return amplitude * np.random.default_rng(seed).standard_normal(n, dtype=np.float32)
