"""Augmentations of the waveform, on the CPU, before any feature is computed.

Each is drawn from a generator that depends on (seed, epoch, utterance id, name) alone, so adding one
leaves the draws of the others as they were. Audio is float32 [S] at 16 kHz in and out.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import soxr

from asrlib.data.audio import SAMPLE_RATE, is_audio, read_audio
from asrlib.randomness import generator


class WaveformAugmentation:
    """Applies itself with probability ``p``; subclasses say how in ``apply``."""

    def __init__(self, p: float = 1.0):
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"{type(self).__name__}: p={p} is no probability")
        self.p = p

    def __call__(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.apply(audio, rng) if rng.random() < self.p else audio

    def apply(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError


class Speed(WaveformAugmentation):
    """Plays faster or slower, which moves tempo and pitch together.

    Ko et al., "Audio augmentation for speech recognition", Interspeech 2015. The factors are a short
    list, not a range: with few distinct ratios the resampler stays cheap, and lengths are known.
    """

    def __init__(self, factors: tuple[float, ...] = (0.9, 1.0, 1.1), p: float = 1.0):
        super().__init__(p)
        if not factors or min(factors) <= 0:
            raise ValueError(f"Speed: factors must be positive, not {list(factors)}")
        self.factors = tuple(factors)

    def factor(self, rng: np.random.Generator) -> float:
        """The factor that a call with a generator in this state applies."""
        return float(rng.choice(self.factors)) if rng.random() < self.p else 1.0

    def __call__(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        factor = self.factor(rng)
        return audio if factor == 1.0 else soxr.resample(audio, SAMPLE_RATE * factor, SAMPLE_RATE)


class Gain(WaveformAugmentation):
    """Louder or softer by a uniform number of decibels; clipped at full scale as a recorder would."""

    def __init__(self, low_db: float = -12.0, high_db: float = 6.0, p: float = 1.0):
        super().__init__(p)
        self.low_db, self.high_db = low_db, high_db

    def apply(self, audio, rng):
        return np.clip(audio * 10 ** (rng.uniform(self.low_db, self.high_db) / 20), -1.0, 1.0)


def mix_at_snr(audio: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """``audio`` plus ``noise`` [S] scaled so that the ratio of their mean powers is ``snr_db``.

    Where either is silent there is no ratio, and the audio is returned as it was.
    """
    power, noise_power = np.mean(audio**2), np.mean(noise**2)
    if power == 0 or noise_power == 0:
        return audio
    scale = np.sqrt(power / (noise_power * 10 ** (snr_db / 10)))
    return audio + np.float32(scale) * noise


class ColoredNoise(WaveformAugmentation):
    """Gaussian noise with power density 1 / f**exponent: 0 is white, 1 pink, 2 brown.

    Shaped in the frequency domain (Timmer and König, "On generating power law noise", 1995).
    """

    def __init__(
        self,
        low_snr_db: float = 10.0,
        high_snr_db: float = 40.0,
        exponents: tuple[float, float] = (0.0, 2.0),
        p: float = 0.5,
    ):
        super().__init__(p)
        self.snr_db, self.exponents = (low_snr_db, high_snr_db), tuple(exponents)

    def apply(self, audio, rng):
        snr_db, exponent = rng.uniform(*self.snr_db), rng.uniform(*self.exponents)
        spectrum = np.fft.rfft(rng.standard_normal(len(audio), dtype=np.float32))
        frequency = np.arange(len(spectrum), dtype=np.float32)
        frequency[0] = 1.0  # the mean is as strong as the lowest frequency, not infinite
        noise = np.fft.irfft(spectrum * frequency ** (-exponent / 2), n=len(audio))
        return mix_at_snr(audio, noise.astype(np.float32), snr_db)


@lru_cache(maxsize=32)
def _noise_recording(path: str) -> np.ndarray:
    return read_audio(path)


class NoiseFiles(WaveformAugmentation):
    """A stretch of a recorded background from a folder of audio files, at a uniform SNR.

    Args:
        data_dir: searched recursively; a file shorter than the utterance is repeated.

    Raises:
        FileNotFoundError: no audio file in ``data_dir``.
    """

    def __init__(
        self, data_dir: str, low_snr_db: float = 5.0, high_snr_db: float = 25.0, p: float = 0.5
    ):
        super().__init__(p)
        self.paths = sorted(str(p) for p in Path(data_dir).rglob("*") if is_audio(p))
        if not self.paths:
            raise FileNotFoundError(
                f"no audio files in {Path(data_dir).absolute()} to use as noise"
            )
        self.snr_db = (low_snr_db, high_snr_db)

    def apply(self, audio, rng):
        noise = _noise_recording(self.paths[rng.integers(len(self.paths))])
        start = rng.integers(len(noise))
        stretch = np.take(noise, np.arange(start, start + len(audio)), mode="wrap")
        return mix_at_snr(audio, stretch, rng.uniform(*self.snr_db))


class WaveformAugmentations:
    """A named sequence of augmentations, applied in order.

    Args:
        augmentations: {name: augmentation}; the name is part of the key of its draws.
        seed: the run's seed.
        from_epoch: the first epoch, counted from 0, in which they are applied.
    """

    def __init__(
        self, augmentations: Mapping[str, WaveformAugmentation], seed: int, from_epoch: int = 0
    ):
        self.augmentations, self.seed = dict(augmentations), seed
        self.from_epoch = from_epoch

    def __call__(self, audio: np.ndarray, epoch: int, utterance_id: str) -> np.ndarray:
        for name, augmentation in self._in(epoch).items():
            audio = augmentation(audio, generator(self.seed, epoch, utterance_id, name))
        return np.ascontiguousarray(audio, dtype=np.float32)

    def duration_factor(self, epoch: int, utterance_id: str) -> float:
        """Duration after / before, so that batches can be filled by what they will really hold."""
        factor = 1.0
        for name, augmentation in self._in(epoch).items():
            if isinstance(augmentation, Speed):
                factor /= augmentation.factor(generator(self.seed, epoch, utterance_id, name))
        return factor

    def _in(self, epoch: int) -> Mapping[str, WaveformAugmentation]:
        return self.augmentations if epoch >= self.from_epoch else {}
