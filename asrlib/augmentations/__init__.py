"""Augmentations: of the waveform in the loader's workers, of the spectrogram on the device."""

from asrlib.augmentations.spectrogram import SpecAugment, SpectrogramAugmentations
from asrlib.augmentations.waveform import (
    ColoredNoise,
    Gain,
    NoiseFiles,
    Speed,
    WaveformAugmentations,
)

__all__ = [
    "ColoredNoise",
    "Gain",
    "NoiseFiles",
    "SpecAugment",
    "SpectrogramAugmentations",
    "Speed",
    "WaveformAugmentations",
]
