"""Rooms: the waveform convolved with an impulse response, at the level and at the times it had.

The direct sound stays where it was, since the time that it takes to arrive would only move the speech.
"""

from collections.abc import Sequence

import numpy as np

from asrlib.augmentations.recordings import Recordings
from asrlib.augmentations.waveform import WaveformAugmentation, fft_size
from asrlib.data.audio import SAMPLE_RATE


def reverberate(audio: np.ndarray, response: np.ndarray, direct: int = 0) -> np.ndarray:
    """``audio`` [S] as heard through ``response`` [n], float32 [S] of the same mean power.

    Args:
        direct: the sample of the response at which the direct sound arrives, which becomes time 0.
    """
    size = fft_size(len(audio) + len(response) - 1)  # without wrap-around
    spectrum = np.fft.rfft(audio, size) * np.fft.rfft(response, size)
    heard = np.fft.irfft(spectrum, size)[direct : direct + len(audio)]
    power, heard_power = np.mean(audio**2), np.mean(heard**2)
    if power == 0 or heard_power == 0:
        return audio
    return (heard * np.sqrt(power / heard_power)).astype(np.float32)


class SyntheticRoom(WaveformAugmentation):
    """A room's reverberation as Gaussian noise that decays exponentially after the direct sound.

    Polack's statistical model ("La transmission de l'énergie sonore dans les salles", thesis, 1988):
    right for late reverberation, without the separate early reflections of a real room.

    Args:
        rt60: seconds in which the reverberation falls by 60 dB, [low, high].
        direct_to_reverberant_db: energy of the direct sound over that of all the rest, [low, high].
    """

    def __init__(
        self,
        rt60: Sequence[float] = (0.15, 0.8),
        direct_to_reverberant_db: Sequence[float] = (0.0, 15.0),
        p: float = 0.5,
    ):
        super().__init__(p)
        self.rt60 = self._range("rt60", rt60, 0.01, 10.0)
        self.ratio_db = self._range(
            "direct_to_reverberant_db", direct_to_reverberant_db, -30.0, 60.0
        )

    def apply(self, audio, rng):
        return reverberate(audio, self.response(rng))

    def response(self, rng: np.random.Generator) -> np.ndarray:
        """An impulse response, float32 [rt60 · 16 kHz]; its first sample is the direct sound."""
        rt60, ratio_db = rng.uniform(*self.rt60), rng.uniform(*self.ratio_db)
        samples = round(rt60 * SAMPLE_RATE)
        # amplitude falls by 60 dB, that is to 1e-3, in rt60
        decay = np.exp(np.log(1e-3) / samples * np.arange(samples, dtype=np.float32))
        response = rng.standard_normal(samples, dtype=np.float32) * decay
        response[0] = 0.0
        response *= 10 ** (-ratio_db / 20) / np.linalg.norm(response)
        response[0] = 1.0
        return response


class RoomFiles(WaveformAugmentation):
    """An impulse response from a folder of recorded or simulated ones.

    Ko et al., "A study on data augmentation of reverberant speech for robust speech recognition",
    ICASSP 2017, whose responses are at openslr.org/28. The direct sound is where a response is
    loudest; of several channels the mean is taken.

    Args:
        data_dir, files: as for ``NoiseFiles``.
    """

    def __init__(self, data_dir: str, files: Sequence[str] = ("**/*",), p: float = 0.5):
        super().__init__(p)
        self.recordings = Recordings(data_dir, files)

    def apply(self, audio, rng):
        response = self.recordings.draw(rng)
        return reverberate(audio, response, int(np.abs(response).argmax()))
