"""espeak-ng as a function from text to samples.

Of its state (``asrlib.espeak``) the place in the flutter table that wavers the pitch, and echo, would
reach the next utterance; its noise is seeded from the clock unless that is fixed.
"""

import ctypes

import numpy as np
import soxr

from asrlib.data.audio import SAMPLE_RATE
from asrlib.espeak import checked, data_folder, in_a_process, open_espeak

_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def _run_espeak(voice: str, rate: int, pitch: int, sentence: str) -> tuple[int, bytes]:
    """Sample rate in Hz and 16-bit samples; to be called once in the life of a process."""
    lib, sample_rate = open_espeak(voice)
    chunks: list[bytes] = []

    @_Callback
    def collect(samples, count, events):
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    lib.espeak_SetSynthCallback(collect)
    lib.espeak_ng_SetRandSeed(ctypes.c_long(1))
    # from espeak-ng's speak_lib.h: UTF-8; 1 rate, 3 pitch
    checked(lib.espeak_SetParameter(1, rate, 0), "espeak_SetParameter")
    checked(lib.espeak_SetParameter(3, pitch, 0), "espeak_SetParameter")
    text = sentence.encode()
    checked(lib.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1, None, None), "espeak_Synth")
    checked(lib.espeak_Synchronize(), "espeak_Synchronize")
    return sample_rate, b"".join(chunks)


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
    variants = data_folder() / "voices" / "!v"
    if variant != "default" and not (variants / variant).is_file():
        raise ValueError(f"espeak-ng has no voice variant {variant!r} in {variants}")
    voice = accent if variant == "default" else f"{accent}+{variant}"
    sample_rate, pcm = in_a_process(_run_espeak, voice, rate, pitch, sentence)
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    return soxr.resample(samples, sample_rate, SAMPLE_RATE)
