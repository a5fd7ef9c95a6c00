"""espeak-ng as a function from text to samples.

It comes as a shared library in the ``espeakng-loader`` wheel and is called with ctypes. It keeps state
between utterances which it offers no way to reset (the place in the flutter table that wavers the
pitch, echo), and seeds its noise from the clock. So each utterance is spoken in a fresh forked process
with a fixed noise seed: the samples depend on the arguments alone.
"""

import ctypes
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType

import numpy as np
import soxr

from asrlib.data.audio import SAMPLE_RATE


def _loader() -> ModuleType:
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError(
            "the demonstration corpus needs espeakng-loader: pip install -r requirements-dev.txt"
        ) from error
    return espeakng_loader


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def _checked(status: int, call: str) -> int:
    if status < 0 or (status > 0 and call != "espeak_Initialize"):
        raise RuntimeError(f"espeak-ng: {call} returned {status}")
    return status


def _run_espeak(voice: str, rate: int, pitch: int, sentence: str) -> tuple[int, bytes]:
    """Sample rate in Hz and 16-bit samples; to be called once in the life of a process."""
    loader = _loader()
    lib = ctypes.CDLL(loader.get_library_path())
    chunks: list[bytes] = []

    @_Callback
    def collect(samples, count, events):
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    # from espeak-ng's speak_lib.h: synchronous output, do not exit on errors, UTF-8; 1 rate, 3 pitch
    data = loader.get_data_path().encode()
    sample_rate = _checked(lib.espeak_Initialize(2, 0, data, 0x8000), "espeak_Initialize")
    lib.espeak_SetSynthCallback(collect)
    lib.espeak_ng_SetRandSeed(ctypes.c_long(1))
    _checked(lib.espeak_SetVoiceByName(voice.encode()), f"espeak_SetVoiceByName({voice})")
    _checked(lib.espeak_SetParameter(1, rate, 0), "espeak_SetParameter")
    _checked(lib.espeak_SetParameter(3, pitch, 0), "espeak_SetParameter")
    text = sentence.encode()
    _checked(lib.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1, None, None), "espeak_Synth")
    _checked(lib.espeak_Synchronize(), "espeak_Synchronize")
    return sample_rate, b"".join(chunks)


def _send_espeak(connection: Connection, *arguments) -> None:
    connection.send(_run_espeak(*arguments))


def speak(accent: str, variant: str, rate: int, pitch: int, sentence: str) -> np.ndarray:
    """Samples of ``sentence``: float32, shape [samples], 16 kHz.

    Args:
        accent: a voice file of espeak-ng, such as "gmw/en-US".
        variant: one of its voice variants, or "default".
        rate: words per minute.
        pitch: from 0 to 99; 50 is the variant's own.

    Raises:
        ImportError: espeakng-loader is not installed; the message names the fix.
        RuntimeError: espeak-ng refused the voice, or its process died.
        ValueError: no such variant, or the platform cannot fork processes (Windows).
    """
    # espeak-ng itself would fall back on its default timbre without a word
    variants = Path(_loader().get_data_path()) / "voices" / "!v"
    if variant != "default" and not (variants / variant).is_file():
        raise ValueError(f"espeak-ng has no voice variant {variant!r} in {variants}")
    voice = accent if variant == "default" else f"{accent}+{variant}"
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_send_espeak, args=(sender, voice, rate, pitch, sentence))
    process.start()
    sender.close()
    try:
        sample_rate, pcm = receiver.recv()
    except EOFError:
        raise RuntimeError(f"espeak-ng gave no speech for {voice}: {sentence!r}") from None
    finally:
        process.join()
        receiver.close()
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    return soxr.resample(samples, sample_rate, SAMPLE_RATE)
