"""Augmentations of the waveform, on the CPU, before any feature is computed.

Each is drawn from a generator that depends on (seed, epoch, utterance id, name) alone, so adding one
leaves the draws of the others as they were. Audio is float32 [S] at 16 kHz in and out; only ``Speed``
changes its length. Here are those of tempo and level; noise, rooms and channels have modules of their own.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import soxr

from asrlib.data.audio import SAMPLE_RATE
from asrlib.randomness import generator


def fft_size(samples: int) -> int:
    """The power of two that holds ``samples``: a transform of another size may take ten times as long."""
    return 1 << (samples - 1).bit_length()


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

    def __repr__(self) -> str:
        """With all options, so that fingerprints of data can hold it."""
        return f"{type(self).__name__}({vars(self)})"

    def _range(
        self, name: str, low_high: Sequence[float], least: float, most: float
    ) -> tuple[float, float]:
        """An option that is drawn uniformly, as (low, high); raises ``ValueError`` if it cannot be."""
        if len(low_high) != 2 or not least <= low_high[0] <= low_high[1] <= most:
            raise ValueError(
                f"{type(self).__name__}: {name} must be [low, high] within {least} and {most}, "
                f"not {[*low_high]}"
            )
        return float(low_high[0]), float(low_high[1])

    def _decibels(self, unit: str, low: float, high: float) -> tuple[float, float]:
        return self._range(f"[low_{unit}, high_{unit}]", (low, high), -200.0, 200.0)


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


class Shift(WaveformAugmentation):
    """Begins up to ``max_seconds`` earlier or later; zeros fill the gap, and the length stays.

    What is moved beyond an end is lost: at most ``max_seconds``, so keep it shorter than the pauses
    around the speech.
    """

    def __init__(self, max_seconds: float = 0.05, p: float = 0.5):
        super().__init__(p)
        if max_seconds < 0:
            raise ValueError(f"Shift: max_seconds={max_seconds} is negative")
        self.max_seconds = max_seconds

    def apply(self, audio, rng):
        most = min(round(self.max_seconds * SAMPLE_RATE), len(audio) - 1)
        later = int(rng.integers(-most, most, endpoint=True))
        kept = audio[max(-later, 0) : len(audio) - max(later, 0)]
        return np.pad(kept, (max(later, 0), max(-later, 0)))


class Gain(WaveformAugmentation):
    """Louder or softer by a uniform number of decibels; clipped at full scale as a recorder would."""

    def __init__(self, low_db: float = -12.0, high_db: float = 6.0, p: float = 1.0):
        super().__init__(p)
        self.low_db, self.high_db = self._decibels("db", low_db, high_db)

    def apply(self, audio, rng):
        return np.clip(audio * 10 ** (rng.uniform(self.low_db, self.high_db) / 20), -1.0, 1.0)


class WaveformAugmentations:
    """A named sequence of augmentations, applied in order.

    Args:
        augmentations: {name: augmentation}; the name is part of the key of its draws.
        seed: the run's seed.
        from_epoch: the first epoch, counted from 0, in which they are applied.
        fixed: draw as in epoch 0 at all times, for a dev or test set that is to stay the same.
    """

    def __init__(
        self,
        augmentations: Mapping[str, WaveformAugmentation],
        seed: int,
        from_epoch: int = 0,
        fixed: bool = False,
    ):
        self.augmentations, self.seed = dict(augmentations), seed
        self.from_epoch, self.fixed = from_epoch, fixed
        if fixed and from_epoch:
            raise ValueError(f"fixed augmentations do not begin later: from_epoch={from_epoch}")

    def __call__(self, audio: np.ndarray, epoch: int, utterance_id: str) -> np.ndarray:
        for augmentation, rng in self._draws(epoch, utterance_id):
            audio = augmentation(audio, rng)
        return np.ascontiguousarray(audio, dtype=np.float32)

    def duration_factor(self, epoch: int, utterance_id: str) -> float:
        """Duration after / before, so that batches can be filled by what they will really hold."""
        factor = 1.0
        for speed, rng in self._draws(epoch, utterance_id, Speed):
            factor /= speed.factor(rng)
        return factor

    def __repr__(self) -> str:
        return f"{type(self).__name__}({vars(self)})"

    def _draws(self, epoch, utterance_id, kind=object):
        """Each augmentation of a ``kind`` that has begun, with the generator of its draws."""
        epoch = 0 if self.fixed else epoch
        if epoch >= self.from_epoch:
            for name, augmentation in self.augmentations.items():
                if isinstance(augmentation, kind):  # a generator is not for nothing
                    yield augmentation, generator(self.seed, epoch, utterance_id, name)
