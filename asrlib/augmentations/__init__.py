"""Augmentations: of the waveform in the loader's workers, of the spectrogram on the device."""

from asrlib.augmentations.channel import BandPass, Clipping, Codec
from asrlib.augmentations.noise import ColoredNoise, NoiseFiles
from asrlib.augmentations.room import RoomFiles, SyntheticRoom
from asrlib.augmentations.spectrogram import SpecAugment, SpectrogramAugmentations, TimeWarp
from asrlib.augmentations.waveform import Gain, Shift, Speed, WaveformAugmentations

__all__ = [
    "BandPass",
    "Clipping",
    "Codec",
    "ColoredNoise",
    "Gain",
    "NoiseFiles",
    "RoomFiles",
    "Shift",
    "SpecAugment",
    "SpectrogramAugmentations",
    "Speed",
    "SyntheticRoom",
    "TimeWarp",
    "WaveformAugmentations",
]
