"""Augmentations: of the waveform in the loader's workers, of the spectrogram on the device.

Milliseconds of CPU per second of audio where one is applied (one core of a shared server, 4 s of speech;
``python -m report.augmentations --out DIR`` measures, and draws each of them):

| | ms/s | | ms/s |
|---|---|---|---|
| Speed | 0.1 | Clipping | 0.1 |
| Shift, Gain | < 0.1 | BandPass | 1 |
| SyntheticRoom | 1 | Codec: gsm | 3 |
| RoomFiles | 1 | Codec: mp3 | 6 |
| ColoredNoise | 5 | Codec: opus | 16 to 35 |
| NoiseFiles | 0.1 | TimeWarp, SpecAugment | 0.1 |

Opus takes what its encoder takes: libsndfile cannot ask it for less. With their probabilities, all that
``augmentations=robust`` does to a waveform costs 3.2 ms/s, and ``default`` 1.8.
"""

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
