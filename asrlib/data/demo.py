"""The demonstration corpus: our own sentences spoken by espeak-ng, in LibriSpeech's layout.

Design choices:

* A voice is an accent, a voice variant (timbre), a speed and a pitch. The timbres of train, dev and
  test are disjoint, and near copies of one timbre (such as ``steph`` and ``steph2``) are kept in the
  same part; the accents are shared. Robot, whisper and creaking variants are left out.
* Nothing is added to or trimmed from the audio; an utterance is made quieter only where its peak
  would pass ``HIGHEST_PEAK``.
* All draws are pure functions of (seed, split, speaker); the folder is renamed into place when whole.

``python -m asrlib.data.demo --root data/demo --seed 0`` makes the corpus and prints its statistics.
"""

import argparse
import itertools
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from asrlib.cores import usable_cores
from asrlib.data.audio import SAMPLE_RATE
from asrlib.data.demo_text import sentences, transcript
from asrlib.data.espeak import speak
from asrlib.files import folder_written_atomically
from asrlib.randomness import generator

VERSION = 1
HIGHEST_PEAK = 0.95
WORDS = {"test": 2400, "dev": 780, "train": 10_750}  # chosen for 12, 4 and 57 minutes
CHAPTER_LENGTH = 8  # utterances

# {name: espeak-ng's voice file}; an accent listed twice is used twice as often
_ACCENT_FILES = {
    "en-us": "gmw/en-US",
    "en-gb": "gmw/en",
    "en-gb-x-rp": "gmw/en-GB-x-rp",
    "en-gb-scotland": "gmw/en-GB-scotland",
    "en-gb-x-gbclan": "gmw/en-GB-x-gbclan",
    "en-029": "gmw/en-029",
}
_ACCENTS = [
    *["en-us", "en-gb", "en-us", "en-gb-x-rp", "en-us", "en-gb", "en-gb-scotland"],
    *["en-us", "en-gb", "en-gb-x-rp", "en-029", "en-gb-x-gbclan"],
]
# female timbres are fewer, so those of train are listed twice: two speakers each
_TIMBRE_LISTS = {
    "train": """default f1 f2 f4 linda aunty belinda Alicia Andrea grandma m1 m2 m5 Mike Andy Denis
        grandpa Mario Michael gustave marcelo adam benjamin david edward edward2 klatt3 klatt4 klatt6
        mike2 max boris paul iven3 john pablo AnxiousAndy Marco ed Lee sandro Jacky
        default f1 f2 f4 linda aunty belinda Alicia Andrea grandma m1 m2""",
    "dev": "f5 m4 michel victor shelby Hugo",
    "test": "f3 m3 Annie m6 steph robert Gene quincy Nguyen steph2 m8 Storm Reed Alex",
}
_TIMBRES = {split: names.split() for split, names in _TIMBRE_LISTS.items()}
_FIRST_SPEAKER = {"train": 1001, "dev": 2001, "test": 3001}
_SLOWEST, _FASTEST = 140, 190  # words per minute
_LOWEST, _HIGHEST = 38, 62  # espeak-ng's pitch scale: 0 to 99, 50 is the variant's own


class Voice(NamedTuple):
    """One speaker: ``rate`` in words per minute, ``pitch`` from 0 to 99 (50: the timbre's own)."""

    speaker: int
    accent: str
    timbre: str
    rate: int
    pitch: int


class Line(NamedTuple):
    """One utterance to be spoken: ``sentence`` with punctuation, ``chapter`` and ``number`` in it."""

    voice: Voice
    chapter: int
    number: int
    sentence: str

    @property
    def chapter_name(self) -> str:
        return f"{self.voice.speaker}-{self.chapter}"

    @property
    def id(self) -> str:
        return f"{self.chapter_name}-{self.number:04d}"


class Spoken(NamedTuple):
    """What the statistics need of one utterance: ``text`` in capitals, length in seconds."""

    speaker: int
    timbre: str
    text: str
    seconds: float


def voices(seed: int, split: str) -> list[Voice]:
    """The speakers of a split; speed and pitch are functions of (seed, split, speaker) alone."""

    def voice(i: int, timbre: str) -> Voice:
        speaker = _FIRST_SPEAKER[split] + i
        rng = generator(seed, "demo voice", split, speaker)
        rate = int(rng.integers(_SLOWEST, _FASTEST, endpoint=True))
        pitch = int(rng.integers(_LOWEST, _HIGHEST, endpoint=True))
        return Voice(speaker, _ACCENTS[i % len(_ACCENTS)], timbre, rate, pitch)

    return [voice(i, timbre) for i, timbre in enumerate(_TIMBRES[split])]


def plan(seed: int, words: Mapping[str, int] = WORDS) -> dict[str, list[Line]]:
    """{split: utterances}, at least ``words[split]`` words each, with no sentence in two splits."""
    used: list[str] = []
    lines = {}
    for split, count in words.items():
        texts = sentences(seed, split, count, used)
        used += [transcript(text) for text in texts]
        lines[split] = _dealt(voices(seed, split), texts)
    return lines


def _dealt(speakers: Sequence[Voice], texts: Sequence[str]) -> list[Line]:
    lines = []
    for i, voice in enumerate(speakers):
        for j, text in enumerate(texts[i :: len(speakers)]):
            chapter, number = divmod(j, CHAPTER_LENGTH)
            lines.append(Line(voice, 100 * voice.speaker + chapter, number, text))
    return lines


def synthesise(voice: Voice, sentence: str) -> np.ndarray:
    """Samples of ``sentence``: int16, shape [samples], 16 kHz; a function of the arguments alone.

    Raises:
        as ``asrlib.data.espeak.speak``.
    """
    samples = speak(_ACCENT_FILES[voice.accent], voice.timbre, voice.rate, voice.pitch, sentence)
    samples *= min(1.0, HIGHEST_PEAK / max(float(np.abs(samples).max()), 1e-9))
    return np.round(samples * 32767).astype(np.int16)


def _speak_to_file(line: Line, folder: Path) -> float:
    samples = synthesise(line.voice, line.sentence)
    soundfile.write(folder / f"{line.id}.flac", samples, SAMPLE_RATE, subtype="PCM_16")
    return len(samples) / SAMPLE_RATE


def _write_split(folder: Path, lines: Sequence[Line], pool: ProcessPoolExecutor) -> list[Spoken]:
    folders = [folder / str(line.voice.speaker) / str(line.chapter) for line in lines]
    transcripts: dict[Path, list[str]] = {}
    for line, chapter in zip(lines, folders, strict=True):
        path = chapter / f"{line.chapter_name}.trans.txt"
        transcripts.setdefault(path, []).append(f"{line.id} {transcript(line.sentence)}\n")
    for path, texts in transcripts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(texts))
    seconds = pool.map(_speak_to_file, lines, folders, chunksize=8)
    return [
        Spoken(line.voice.speaker, line.voice.timbre, transcript(line.sentence), length)
        for line, length in zip(lines, seconds, strict=True)
    ]


def _speakers_table(lines: Mapping[str, Sequence[Line]]) -> str:
    rows = ["; espeak-ng voices of the demonstration corpus", ";ID |SPLIT|ACCENT|VARIANT|WPM|PITCH"]
    for split in lines:
        for voice in dict.fromkeys(line.voice for line in lines[split]):
            speaker, accent, timbre, rate, pitch = voice
            rows.append(f"{speaker} | {split:5} | {accent:14} | {timbre:9} | {rate} | {pitch}")
    return "\n".join(rows) + "\n"


def _bigrams(text: str) -> list[tuple[str, str]]:
    words = text.split()
    return list(itertools.pairwise(words))


def statistics(corpus: Mapping[str, Sequence[Spoken]]) -> dict[str, dict[str, float]]:
    """{split: {name: count}}; lengths in seconds, and how ``test`` overlaps with ``train``.

    ``unseen_bigrams_percent`` is the share of the test's word bigrams, as running text, that do not
    occur in train; ``train_sentences`` and ``train_timbres`` count those the test shares with train.
    """
    table: dict[str, dict[str, float]] = {}
    for split, spoken in corpus.items():
        lengths = np.array([utterance.seconds for utterance in spoken])
        words = [word for utterance in spoken for word in utterance.text.split()]
        table[split] = {
            "utterances": len(spoken),
            "minutes": round(float(lengths.sum()) / 60, 2),
            "voices": len({utterance.speaker for utterance in spoken}),
            "words": len(words),
            "word_types": len(set(words)),
            "shortest": round(float(lengths.min()), 2),
            "median": round(float(np.median(lengths)), 2),
            "longest": round(float(lengths.max()), 2),
        }
    train, test = corpus["train"], corpus["test"]
    known = {bigram for utterance in train for bigram in _bigrams(utterance.text)}
    bigrams = [bigram for utterance in test for bigram in _bigrams(utterance.text)]
    unseen = sum(bigram not in known for bigram in bigrams)
    table["test"] |= {
        "unseen_bigrams_percent": round(100 * unseen / max(len(bigrams), 1), 1),
        "train_sentences": len({u.text for u in test} & {u.text for u in train}),
        "train_timbres": len({u.timbre for u in test} & {u.timbre for u in train}),
    }
    return table


def ensure_demo_corpus(root: Path | str, seed: int = 0, words: Mapping[str, int] = WORDS) -> Path:
    """Makes the corpus below ``root`` unless it is there, and returns ``root``.

    ``words`` are the least numbers of words per split; the default is the whole corpus.

    Raises:
        FileExistsError: ``root`` holds another corpus; the message names the folder to remove.
    """
    root = Path(root)
    stamp = {"version": VERSION, "seed": seed, "words": dict(words)}
    if root.exists():
        path = root / "demo.json"
        found = json.loads(path.read_text()) if path.is_file() else {}
        if {name: found.get(name) for name in stamp} == stamp:
            return root
        raise FileExistsError(
            f"{root} is not the demonstration corpus of version {VERSION} and seed {seed}; "
            f"remove the folder {root.absolute()} to make it anew"
        )
    lines = plan(seed, words)
    # spawn: workers without the caller's threads and locks, safe to fork from
    spawn = multiprocessing.get_context("spawn")
    with (
        folder_written_atomically(root) as folder,
        ProcessPoolExecutor(usable_cores(), mp_context=spawn) as pool,
    ):
        corpus = {split: _write_split(folder / split, lines[split], pool) for split in lines}
        (folder / "SPEAKERS.TXT").write_text(_speakers_table(lines))
        stamp["statistics"] = statistics(corpus)
        (folder / "demo.json").write_text(json.dumps(stamp, indent=2) + "\n")
    return root


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the corpus and prints its statistics, one line per number and one column per split."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--root", type=Path, default=Path("data/demo"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    root = ensure_demo_corpus(options.root, options.seed)
    table = json.loads((root / "demo.json").read_text())["statistics"]
    splits = ["train", "dev", "test"]
    print(f"{'':24}" + "".join(f"{split:>10}" for split in splits))
    for name in table["test"]:
        print(f"{name:24}" + "".join(f"{table[split].get(name, ''):>10}" for split in splits))


if __name__ == "__main__":
    main()
