"""A corpus for tests, made of tones: each letter has its pitch."""

from pathlib import Path

import numpy as np
import soundfile

from asrlib.data import SAMPLE_RATE
from asrlib.randomness import generator

LETTER_SECONDS = 0.15


def say(text: str) -> np.ndarray:
    """float32 [S] at 16 kHz: a tone a letter, silence for a space."""
    time = np.arange(int(LETTER_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    pitches = [0 if c == " " else 200 + 100 * (ord(c) - ord("a")) for c in text]
    return np.concatenate([0.3 * np.sin(2 * np.pi * p * time) for p in pitches]).astype(np.float32)


def random_text(*key) -> str:
    rng = generator("text", *key)
    words = ["".join(rng.choice(list("abcde"), rng.integers(1, 4))) for _ in range(4)]
    return " ".join(words[: rng.integers(1, 5)])


def write_custom_dir(folder: Path, count: int, seed: str) -> None:
    """``folder/{audio,transcriptions}`` with ``count`` utterances of two speakers, ids as in AN4."""
    for name in ("audio", "transcriptions"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        id, text = f"{seed}{i}-s{i % 2}-b", random_text(seed, i)
        soundfile.write(folder / "audio" / f"{id}.flac", say(text), SAMPLE_RATE)
        (folder / "transcriptions" / f"{id}.txt").write_text(text)
