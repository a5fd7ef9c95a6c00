"""Noise that is added to the waveform at a signal-to-noise ratio."""

from collections.abc import Sequence

import numpy as np

from asrlib.augmentations.recordings import Recordings
from asrlib.augmentations.waveform import WaveformAugmentation, fft_size


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
        self.snr_db = self._decibels("snr_db", low_snr_db, high_snr_db)
        self.exponents = self._range("exponents", exponents, 0.0, 10.0)

    def apply(self, audio, rng):
        snr_db, exponent = rng.uniform(*self.snr_db), rng.uniform(*self.exponents)
        size = fft_size(len(audio))
        spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
        frequency = np.arange(len(spectrum), dtype=np.float32)
        frequency[0] = 1.0  # the mean is as strong as the lowest frequency, not infinite
        noise = np.fft.irfft(spectrum * frequency ** (-exponent / 2), size)[: len(audio)]
        return mix_at_snr(audio, noise.astype(np.float32), snr_db)


class NoiseFiles(WaveformAugmentation):
    """A stretch of a recorded background from a folder of audio files, at a uniform SNR.

    Snyder et al., "MUSAN: a music, speech, and noise corpus", 2015, has such a folder.

    Args:
        data_dir: searched recursively; a file shorter than the utterance is repeated.
        files: only those that match; see ``asrlib.augmentations.recordings``, also for what is raised.
    """

    def __init__(
        self,
        data_dir: str,
        low_snr_db: float = 5.0,
        high_snr_db: float = 25.0,
        files: Sequence[str] = ("**/*",),
        p: float = 0.5,
    ):
        super().__init__(p)
        self.recordings = Recordings(data_dir, files)
        self.snr_db = self._decibels("snr_db", low_snr_db, high_snr_db)

    def apply(self, audio, rng):
        noise = self.recordings.draw(rng)
        start = rng.integers(len(noise))
        stretch = np.take(noise, np.arange(start, start + len(audio)), mode="wrap")
        return mix_at_snr(audio, stretch, rng.uniform(*self.snr_db))
