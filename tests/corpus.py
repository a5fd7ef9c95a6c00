"""A corpus for tests, made of tones: each letter has its pitch; labels and configurations to train on it."""

from pathlib import Path

import numpy as np
import soundfile

from asrlib.data import SAMPLE_RATE
from asrlib.randomness import generator
from asrlib.text import ALPHABET, BPETextEncoder

LETTER_SECONDS = 0.15
GAP_SECONDS = 0.03  # after a letter, so that two equal ones are two


def say(text: str) -> np.ndarray:
    """float32 [S] at 16 kHz: a tone a letter, silence for a space."""
    time = np.arange(int(LETTER_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    loud = np.where(time < LETTER_SECONDS - GAP_SECONDS, 0.3, 0.0)
    pitches = [0 if c == " " else 200 + 100 * (ord(c) - ord("a")) for c in text]
    tones = np.concatenate([loud * np.sin(2 * np.pi * p * time) for p in pitches])
    hiss = 1e-3 * generator("hiss", text).standard_normal(len(tones))  # no room is silent
    return (tones + hiss).astype(np.float32)


def random_text(*key, longest: int = 4) -> str:
    """1 to ``longest`` words of 1 to 3 letters, a function of the key."""
    rng = generator("text", *key)
    count = rng.integers(1, longest + 1)
    return " ".join("".join(rng.choice(list("abcde"), rng.integers(1, 4))) for _ in range(count))


def write_custom_dir(folder: Path, count: int, seed: str, longest: int = 4) -> None:
    """``folder/{audio,transcriptions}`` with ``count`` utterances of two speakers, ids as in AN4."""
    for name in ("audio", "transcriptions"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        id, text = f"{seed}{i}-s{i % 2}-b", random_text(seed, i, longest=longest)
        soundfile.write(folder / "audio" / f"{id}.flac", say(text), SAMPLE_RATE)
        (folder / "transcriptions" / f"{id}.txt").write_text(text)


def write_parts(root: Path, **counts: int) -> Path:
    """``root`` with a ``write_custom_dir`` for each part: train=8, dev=4."""
    for part, count in counts.items():
        write_custom_dir(root / part, count, seed=part)
    return root


def write_librispeech(root: Path, count: int, *parts: str) -> Path:
    """``root`` in LibriSpeech's layout, ``count`` utterances of one speaker in each of ``parts``."""
    for number, part in enumerate(parts, start=1):
        chapter = root / part / str(number) / "1"
        chapter.mkdir(parents=True)
        lines = []
        for i in range(count):
            id, text = f"{number}-1-{i:04d}", random_text(part, i)
            soundfile.write(chapter / f"{id}.flac", say(text), SAMPLE_RATE)
            lines.append(f"{id} {text.upper()}\n")
        (chapter / f"{number}-1.trans.txt").write_text("".join(lines))
    return root


def made_by_hand(dropout: float = 0.0) -> BPETextEncoder:
    """Characters, and the merges that lead to "▁the" and "ing"."""
    id_of = {character: i for i, character in enumerate(ALPHABET, start=1)}
    names = [("h", "e"), (" ", "t"), (" t", "he"), ("n", "g"), ("i", "ng")]
    for i, (left, right) in enumerate(names):
        id_of[left + right] = 1 + len(ALPHABET) + i
    return BPETextEncoder(ALPHABET, [(id_of[a], id_of[b]) for a, b in names], dropout)


def tiny_overrides(root: Path, run_dir: Path) -> list[str]:
    """A training of seconds on ``root/{train,dev,test}``, written by ``write_custom_dir``."""
    return [
        "datasets=an4",
        f"datasets.root={root}",
        f"run_dir={run_dir}",
        "model.size=xxs",
        "trainer.batch_seconds=4",
        "trainer.epochs=2",
        "trainer.num_workers=0",
        "trainer.precision=fp32",  # a busy machine could choose another for the second of two runs
        "trainer.log_every=1",
        "trainer.log_samples=3",
    ]


def arpa(texts):
    """A bigram model whose words are as frequent as in ``texts``."""
    words = [word for text in texts for word in text.split()]
    counts = {word: words.count(word) for word in words}
    unigrams = [f"{np.log10(n / len(words) / 2):.3f}\t{word}\t0" for word, n in counts.items()]
    return "\n".join(
        [
            *["\\data\\", f"ngram 1={len(unigrams) + 3}", "ngram 2=1", "", "\\1-grams:"],
            *["-99\t<s>\t0", "-0.5\t</s>\t0", "-3\t<unk>\t0", *unigrams],
            *["", "\\2-grams:", "-1.2\t<s> </s>", "", "\\end\\", ""],
        ]
    )
