"""How fast data come: formats of files and shards, and our batches beside lhotse's, on this CPU.

python -m bench.data [--out FILE] [--data DIR] [--minutes N] [--rounds N]

The first minutes of a shuffled DIR (or of the demo's dev part) are written as 16 kHz FLAC and Opus, as
48 kHz MP3 like Common Voice's, and as shards. A worker's CPU seconds for one epoch of training batches of
each are the sum of ``decode`` (the file as it is), ``resample`` (mono, 16 kHz, float32), ``augment`` (the
default augmentations of the waveform) and ``collate`` (padded batches).

``bench.batching`` has what is compared with lhotse.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from asrlib.augmentations import WaveformAugmentations
from asrlib.build import build_named
from asrlib.configs import compose
from asrlib.data import SAMPLE_RATE, SpeechDataset, Utterance, read_audio
from asrlib.data.audio import audio_info, is_audio
from asrlib.data.demo import ensure_demo_corpus
from asrlib.data.loader import make_loader
from asrlib.data.shards import write_shards
from asrlib.data.utterance import Index
from asrlib.files import write_atomically
from asrlib.randomness import generator
from asrlib.result import provenance
from bench.batching import BATCH_SECONDS, BUCKETS, comparison_rows, timed
from bench.train import in_a_process, peak_mb, processor
from report.budget import CORES, GPUS, TFLOPS, TRAINING

FORMATS = {  # of files: soundfile's format and subtype, sample rate
    "flac": ("FLAC", "PCM_16", 16_000),
    "opus": ("OGG", "OPUS", 16_000),
    "mp3": ("MP3", "MPEG_LAYER_III", 48_000),
}
SHARDS = {"shards": "i16", "flac shards": "flac"}
FORWARD = 0.46e9  # FLOP for a second of audio, Conformer-s (python -m asrlib.model.table)
GPU_RATE = round(
    TFLOPS * 1e12 / (TRAINING * FORWARD)
)  # seconds of audio per second; assumed, not measured


def prepare(source: Iterable[Path], minutes: float, folder: Path) -> dict[str, Index]:
    """The first ``minutes`` of the recordings in each format, below ``folder``."""
    indexes = {name: Index() for name in FORMATS}
    seconds = 0.0
    for number, path in enumerate(source):
        if seconds >= 60 * minutes:
            break
        audio = read_audio(path)
        seconds += len(audio) / SAMPLE_RATE
        for name, (format, subtype, rate) in FORMATS.items():
            copy = folder / f"{number:05d}.{name}"
            samples = audio if rate == SAMPLE_RATE else soxr.resample(audio, SAMPLE_RATE, rate)
            soundfile.write(copy, np.clip(samples, -1, 1), rate, format=format, subtype=subtype)
            indexes[name].utterances.append(
                Utterance(copy.stem, str(copy), "", len(audio) / SAMPLE_RATE)
            )
    for name, format in SHARDS.items():
        indexes[name] = write_shards(SpeechDataset(indexes["flac"]), folder / name, format)
    return indexes


def default_augmentations() -> WaveformAugmentations:
    chosen = compose("train").augmentations
    return WaveformAugmentations(build_named(chosen.waveform), seed=0)


def decode(path: str) -> None:
    """A file as it is; a place in a shard costs nothing that is not needed."""
    if "#" in path:
        read_audio(path)
    else:
        soundfile.read(path, dtype="float32")


def time_format(index: Index, rounds: int, answer) -> None:
    """Sends ({stage: CPU seconds of each round}, peak megabytes); a stage's seconds hold those before it."""
    augmented = SpeechDataset(index, augmentations=default_augmentations())
    loader = make_loader(augmented, BATCH_SECONDS, shuffle=True)
    keys = [(0, i) for i in range(len(augmented))]
    paths = [utterance.path for utterance in augmented.utterances]
    stages = {
        "decode": lambda: [decode(path) for path in paths],
        "resample": lambda: [read_audio(path) for path in paths],
        "augment": lambda: [augmented[key] for key in keys],
        "collate": lambda: list(map(len, loader)),
    }
    taken: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(rounds):
        for name, action in stages.items():
            taken[name].append(timed(action))
    answer.send((taken, peak_mb()))


def format_rows(indexes: dict[str, Index], rounds: int) -> list[dict]:
    """A row of each format."""
    rows = []
    for name, index in indexes.items():
        taken, peak = in_a_process(time_format, index, rounds)
        until = {stage: statistics.median(seconds) for stage, seconds in taken.items()}
        audio = sum(utterance.duration for utterance in index.utterances)
        before = [0.0, *until.values()]
        parts = [max(b - a, 0.0) for a, b in itertools.pairwise(before)]
        rows.append(
            {
                "system": "asrlib",
                "measured": "format",
                "format": name,
                "sample_rate": FORMATS.get(name, (None, None, SAMPLE_RATE))[2],
                "bytes_per_audio_second": _bytes(index) / audio,
                "utterances": len(index.utterances),
                "audio_seconds": audio,
                "seconds": until["collate"],
                "audio_seconds_per_second": audio / until["collate"],
                **{f"{stage}_seconds": part for stage, part in zip(until, parts, strict=True)},
                "peak_mb": peak,
            }
        )
    return rows


def _bytes(index: Index) -> int:
    files = {utterance.path.split("#")[0] for utterance in index.utterances}
    return sum(os.path.getsize(file) for file in files)


def supply_line(row: dict) -> str:
    """Whether the cores of a Kaggle machine feed its GPUs with this format."""
    needed = GPUS * GPU_RATE / row["audio_seconds_per_second"]
    verdict = "enough" if needed <= CORES else "NOT enough"
    return (
        f"{row['format']:12} needs {needed:.2f} cores of {CORES} like this one for {GPUS} T4 at "
        f"{GPU_RATE} s/s each (assumed: Conformer-s in training): {verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="JSON file for the rows")
    parser.add_argument("--data", type=Path, help="any folder of recordings; else the demo's dev")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes to come
    root = options.data or ensure_demo_corpus("data/demo") / "dev"
    source = sorted(filter(is_audio, root.rglob("*")))
    generator("bench").shuffle(source)
    if not source:
        sys.exit(f"no recordings in {root.absolute()}")
    about = {"device": f"cpu ({processor()})"} | provenance()
    with tempfile.TemporaryDirectory() as folder:
        indexes = prepare(source, options.minutes, Path(folder))
        rows = format_rows(indexes, options.rounds)
        print("audio seconds a second of one worker, and its CPU seconds for an hour of audio:")
        stages = ("decode", "resample", "augment", "collate")
        print(f"{'':12} {'s/s':>7} {'kB/s':>5}" + "".join(f"{stage:>10}" for stage in stages))
        for row in rows:
            costs = [row[f"{stage}_seconds"] * 3600 / row["audio_seconds"] for stage in stages]
            print(
                f"{row['format']:12} {row['audio_seconds_per_second']:7.0f} "
                f"{row['bytes_per_audio_second'] / 1000:5.1f}"
                + "".join(f"{cost:10.2f}" for cost in costs)
            )
        print(*map(supply_line, rows), sep="\n")
        try:
            import lhotse  # noqa: F401
        except ImportError:
            print(
                "lhotse left out: it is not installed; make bench-data does that", file=sys.stderr
            )
            buckets: Sequence[int] = ()
        else:
            buckets = BUCKETS
        durations = np.array([audio_info(path).duration for path in source])
        compared = comparison_rows(durations, indexes["flac"], options.rounds, buckets)
    print(f"{'':25} {'system':11} {'batches':>7} {'padding':>8} {'repeated':>8} {'seconds':>8}")
    for row in compared:
        system = row["system"] + (f" {row['buckets']}" if row["buckets"] else "")
        print(
            f"{row['measured']} {row['data']:17} {system:11} {row['batches']:7} "
            f"{row['padding']:8.2%} {row['repeated']:8.1%} {row['seconds']:8.3f}"
        )
    if options.out:
        rows = [row | about for row in [*rows, *compared]]
        write_atomically(options.out, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
