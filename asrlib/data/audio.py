"""Any audio file → mono float32 at 16 kHz.

soundfile (libsndfile) reads FLAC, WAV, MP3, Ogg/Vorbis and Opus by content; soxr resamples, because
it is fast, streams, and unlike torchaudio needs nothing beyond the greedy path's requirements. A place in
a shard (``asrlib.data.shards``) is read like a file.
"""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 16_000  # hertz; every model, feature and length in asrlib assumes it
AUDIO_SUFFIXES = frozenset({".flac", ".wav", ".mp3", ".ogg", ".oga", ".opus"})
LOUDEST = 2.0**31  # of a sample: integers of 32 bits that were never scaled
MIN_RATE, MAX_RATE = 4_000, 384_000  # a header that claims more or less than this is not believed
_IN_SHARD = re.compile(r"(.+\.(i16|flac))#(\d+):(\d+):([0-9a-f]{8})")  # file#byte:bytes:crc32
_PIECE = 10  # seconds read at a time
_MOST_FRAMES = 2**40  # a header that claims more does not know


class AudioError(ValueError):
    """An audio file that cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says, before anything is decoded."""

    duration: float  # seconds
    sample_rate: int  # hertz
    channels: int


def is_audio(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES


@cache
def _mapped(path: str) -> np.ndarray:
    """The bytes of a shard, mapped into memory once in a process."""
    return np.memmap(path, dtype=np.uint8, mode="r")


def _in_shard(path: Path | str, format: str) -> np.ndarray | None:
    """The bytes at a place in a shard of ``format``, uint8 [n]; None for any other path.

    Raises:
        AudioError: no such file, or others than the bytes that were written.
    """
    if (match := _IN_SHARD.fullmatch(str(path))) is None or match[2] != format:
        return None
    name, first, size, crc = match[1], int(match[3]), int(match[4]), int(match[5], 16)
    try:
        stored = _mapped(name)[first : first + size]
    except (OSError, ValueError) as error:
        raise AudioError(f"{path}: not readable ({error})") from error
    if len(stored) != size or zlib.crc32(stored) != crc:
        raise AudioError(f"{path}: damaged (others than the bytes that were written)")
    return stored


class _Endless(soundfile.SoundFile):
    """A FLAC from a pipe, whose header does not know its length: it can be read on, but nothing sought."""

    def seekable(self) -> bool:  # or soundfile would seek after each read
        return False


def _open(path: Path | str) -> soundfile.SoundFile:
    if (stored := _in_shard(path, "flac")) is not None:
        return soundfile.SoundFile(io.BytesIO(stored))
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise AudioError(f"{path}: empty file (0 bytes)")
        file = soundfile.SoundFile(path)
        if file.frames > _MOST_FRAMES:
            file.close()
            file = _Endless(path)
    except FileNotFoundError as error:
        what = "a symbolic link to nothing" if path.is_symlink() else "no such file"
        raise AudioError(f"{path}: {what}") from error
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        raise AudioError(f"{path}: not readable as audio ({error})") from error
    if not (file.channels >= 1 and MIN_RATE <= file.samplerate <= MAX_RATE):
        file.close()
        raise AudioError(f"{path}: header claims {file.samplerate} Hz, {file.channels} channels")
    return file


def audio_info(path: Path | str) -> AudioInfo:
    """Duration, rate and channels from the header.

    Raises:
        AudioError: missing, empty or unreadable file, or a header that claims no samples.
    """
    if (stored := _in_shard(path, "i16")) is not None:
        return AudioInfo(len(stored) / 2 / SAMPLE_RATE, SAMPLE_RATE, channels=1)
    with _open(path) as file:
        rate, frames = file.samplerate, file.frames
        if isinstance(file, _Endless):
            with _decoding(path):
                frames = sum(map(len, _pieces(file)))
        if frames <= 0:
            raise AudioError(f"{path}: no samples")
        return AudioInfo(frames / rate, rate, file.channels)


def _pieces(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """What is in the file, float32 [n, channels] each."""
    while len(samples := file.read(_PIECE * file.samplerate, dtype="float32", always_2d=True)):
        yield samples


@contextmanager
def _decoding(path: Path | str) -> Iterator[None]:
    try:
        yield
    except (soundfile.SoundFileError, ValueError, MemoryError) as error:
        raise AudioError(f"{path}: cannot be decoded ({error})") from error


def _mono(samples: np.ndarray) -> np.ndarray:
    """[n] or [n, channels] → float32 [n]; integers are taken by their full scale.

    Raises ``AudioError`` where a sample is not finite or absurdly large, and for unsigned integers, whose
    silence is not 0.
    """
    samples = np.asarray(samples)
    kind = samples.dtype
    if np.issubdtype(kind, np.unsignedinteger):
        raise AudioError(f"samples are {kind}: give signed integers or numbers in [-1, 1]")
    samples = samples.astype(np.float32, copy=False)
    if np.issubdtype(kind, np.integer):
        samples = samples / np.float32(np.iinfo(kind).max + 1)
    if samples.ndim == 2:
        samples = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    # two passes that make no copy; comparisons with NaN are false
    if samples.size and not -LOUDEST <= samples.min() <= samples.max() <= LOUDEST:
        if missing := np.count_nonzero(~np.isfinite(samples)):
            raise AudioError(f"{missing} samples are NaN or infinite")
        loudest = np.abs(samples).max()
        raise AudioError(f"samples up to {loudest:.1e}, where full scale is 1: damaged")
    return samples


def to_mono_16k(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Samples [n] or [n, channels] at ``sample_rate`` → float32 [S] at 16 kHz.

    Channels are averaged. Raises ``AudioError`` for an empty or non-finite signal, and for more channels than
    samples: [channels, n].
    """
    if np.ndim(samples) == 2 and 0 < len(samples) < np.shape(samples)[1]:
        raise AudioError(
            f"samples {np.shape(samples)} have more channels than samples: transpose them"
        )
    samples = _mono(samples)
    if samples.size and sample_rate != SAMPLE_RATE:
        samples = soxr.resample(samples, sample_rate, SAMPLE_RATE)
    if samples.size == 0:  # as it came, or less than one sample at 16 kHz
        raise AudioError("no samples")
    return np.require(samples, requirements=("C", "W"))  # as PyTorch wants it


def stream_audio(path: Path | str) -> Iterator[np.ndarray]:
    """The file in pieces, float32 [n] each, mono, 16 kHz, in constant memory.

    Pieces follow what is really in the file: a header that claims more costs nothing.

    Raises:
        AudioError: missing, empty, corrupt or truncated before its first sample, or not finite.
    """
    if (stored := _in_shard(path, "i16")) is not None:
        samples = stored.view("<i2")
        step = _PIECE * SAMPLE_RATE
        for start in range(0, len(samples), step):
            yield samples[start : start + step].astype(np.float32) / np.float32(32768)
        return
    with _open(path) as file:
        resample = None
        if file.samplerate != SAMPLE_RATE:
            stream = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32")
            resample = stream.resample_chunk
        empty = True
        with _decoding(path):
            for samples in _pieces(file):
                empty = False
                piece = _mono(samples)
                yield piece if resample is None else resample(piece)
        if empty:
            raise AudioError(f"{path}: no samples")
        if resample is not None:
            yield resample(np.zeros(0, dtype=np.float32), last=True)


def read_audio(path: Path | str, max_seconds: float | None = None) -> np.ndarray | None:
    """The whole file as float32 [S], mono, 16 kHz, in [-1, 1] as a rule.

    Returns None for a file longer than ``max_seconds``, after reading at most 10 s more.

    Raises:
        AudioError: see ``stream_audio``.
    """
    pieces, samples = [], 0
    for piece in stream_audio(path):
        pieces.append(piece)
        samples += len(piece)
        if max_seconds is not None and samples > max_seconds * SAMPLE_RATE:
            return None
    if not samples:
        raise AudioError(f"{path}: no samples")
    return np.concatenate(pieces)
