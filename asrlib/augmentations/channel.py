"""What the sound goes through on its way to us: filters, recorders that clip, codecs."""

import io
from collections.abc import Sequence

import numpy as np
import soundfile
import soxr

from asrlib.augmentations.waveform import WaveformAugmentation, fft_size
from asrlib.data.audio import SAMPLE_RATE


class BandPass(WaveformAugmentation):
    """Lets a band of frequencies pass, as a telephone does (300–3400 Hz, ITU-T G.712).

    The magnitude of a Butterworth filter without its phase, so nothing is delayed: −3 dB at the
    corners, and outside of them 6 · ``order`` dB an octave.

    Args:
        low_hz, high_hz: the corners, each drawn from [low, high].
    """

    def __init__(
        self,
        low_hz: Sequence[float] = (200.0, 400.0),
        high_hz: Sequence[float] = (3000.0, 4000.0),
        order: int = 8,
        p: float = 0.5,
    ):
        super().__init__(p)
        self.low_hz = self._range("low_hz", low_hz, 1.0, SAMPLE_RATE / 2)
        self.high_hz = self._range("high_hz", high_hz, self.low_hz[1], SAMPLE_RATE / 2)
        if order < 1:
            raise ValueError(f"BandPass: order={order} is less than 1")
        self.order = order

    def apply(self, audio, rng):
        low, high = rng.uniform(*self.low_hz), rng.uniform(*self.high_hz)
        size = fft_size(len(audio) + SAMPLE_RATE // 10)  # the ringing does not wrap
        frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32)
        frequency[0] = frequency[1]  # a mean is as inaudible as the lowest bin
        # in logarithms, for powers of a ratio overflow
        steepness = np.float32(2 * self.order)
        below = steepness * (np.log(np.float32(low)) - np.log(frequency))
        above = steepness * (np.log(frequency) - np.log(np.float32(high)))
        gain = np.exp(-0.5 * (np.logaddexp(0, below) + np.logaddexp(0, above)))
        return np.fft.irfft(np.fft.rfft(audio, size) * gain, size)[: len(audio)].astype(np.float32)


class Clipping(WaveformAugmentation):
    """Cuts the peaks off, as an overdriven recorder does: hard clipping.

    Záviška et al., "A survey and an extensive evaluation of popular audio declipping methods", 2021.

    Args:
        share: of the samples, those that are cut, [low, high].
    """

    def __init__(self, share: Sequence[float] = (0.001, 0.05), p: float = 0.5):
        super().__init__(p)
        self.share = self._range("share", share, 0.0, 1.0)

    def apply(self, audio, rng):
        kept = int((1 - rng.uniform(*self.share)) * (len(audio) - 1))
        limit = np.partition(np.abs(audio), kept)[kept]
        # mostly digital silence: cutting at 0 would leave nothing
        return np.clip(audio, -limit, limit) if limit > 0 else audio


# {name: what soundfile writes, its sample rate, and whether it has a compression level}
CODECS = {
    "opus": ({"format": "OGG", "subtype": "OPUS"}, 16_000, True),
    "mp3": ({"format": "MP3", "subtype": "MPEG_LAYER_III"}, 16_000, True),
    "gsm": ({"format": "WAV", "subtype": "GSM610"}, 8_000, False),  # full rate: all 13 kbit/s
}


class Codec(WaveformAugmentation):
    """Encodes and decodes, in memory, by a codec drawn from a list.

    Vu et al., "Audio codec simulation based data augmentation for telephony speech recognition",
    APSIPA 2019. The delay of each codec is measured once, and removed.

    Args:
        codecs: of "opus", "mp3" and "gsm" (GSM 06.10 at 8 kHz).
        level: libsndfile's compression level, 0 for the best quality and less than 1, [low, high].
            Opus has 256 − 250 · level kbit/s: 81 at 0.7, 19 at 0.95; MP3 has about 45 and 30.

    Raises:
        RuntimeError: soundfile or libsndfile, as installed, cannot do it.
    """

    def __init__(
        self,
        codecs: Sequence[str] = ("opus", "mp3", "gsm"),
        level: Sequence[float] = (0.7, 0.95),
        p: float = 0.5,
    ):
        super().__init__(p)
        if not codecs or set(codecs) - CODECS.keys():
            raise ValueError(f"Codec: codecs must be some of {[*CODECS]}, not {list(codecs)}")
        self.level = self._range("level", level, 0.0, 0.99)
        self.delays = {name: _delay(name, self.level[0]) for name in codecs}  # samples

    def apply(self, audio, rng):
        name, level = list(self.delays)[rng.integers(len(self.delays))], rng.uniform(*self.level)
        decoded = round_trip(audio, name, level)[self.delays[name] :][: len(audio)]
        return np.pad(decoded, (0, len(audio) - len(decoded)))


def round_trip(audio: np.ndarray, codec: str, level: float) -> np.ndarray:
    """float32 [S] encoded and decoded; with the delay and the length that the codec gives it."""
    options, rate, has_level = CODECS[codec]
    if has_level:
        options = {**options, "compression_level": level}
    file = io.BytesIO()
    # some codecs make nothing of a sound shorter than one of their blocks
    padded = np.pad(audio, (0, max(0, SAMPLE_RATE // 10 - len(audio))))
    samples = soxr.resample(padded, SAMPLE_RATE, rate)
    soundfile.write(file, np.clip(samples, -1.0, 1.0), rate, **options)
    file.seek(0)
    samples, rate = soundfile.read(file, dtype="float32")
    return soxr.resample(samples, rate, SAMPLE_RATE)


def _delay(codec: str, level: float) -> int:
    """Samples by which a burst of noise comes late; raises ``RuntimeError`` if it does not come."""
    burst = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2, dtype=np.float32)
    try:
        decoded = round_trip(burst, codec, level)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise RuntimeError(
            f"Codec: soundfile {soundfile.__version__} with libsndfile "
            f"{soundfile.__libsndfile_version__} cannot write {codec} ({error}): leave it out of "
            "codecs, or install soundfile 0.13 or newer with its own libsndfile"
        ) from error
    size = 1 << (len(burst) + len(decoded)).bit_length()
    product = np.conj(np.fft.rfft(burst, size)) * np.fft.rfft(decoded, size)
    return int(np.fft.irfft(product, size)[: size // 2].argmax())
