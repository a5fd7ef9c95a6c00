"""A dataset decoded once: large files of 16-bit samples at 16 kHz, and an index of them.

python -m asrlib.data.shards datasets=NAME datasets.root=DIR part=train out=FOLDER [KEY=VALUE]

Compressed files at another rate cost a training's workers most of their time (``make bench-data``), and a
million small files cost a network's disk more. ``FOLDER`` holds ``shard-00000.i16`` … (little-endian samples,
one utterance after the other) or ``….flac`` (one FLAC stream after the other, half as large), and
``index.jsonl``, written last: a line about the whole, then an utterance a line. Its ``path`` is
``shard-00000.i16#FIRST_BYTE:BYTES:CRC32``, which ``asrlib.data.audio`` reads like any file.

What the whole leaves out is decided here, as a training on ``part`` would; augmentations and weights are
not: those of mixtures belong to the training, so the parts of one are prepared one by one.
Which utterances are in which shard depends on their headers alone, so a preparation that was interrupted
goes on with the shards that are missing, in ``num_workers`` processes.
"""

import io
import multiprocessing
import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import hydra
import numpy as np
import soundfile
from omegaconf import DictConfig
from tqdm import tqdm

from asrlib.configs import readable
from asrlib.data.audio import SAMPLE_RATE, AudioError, read_audio
from asrlib.data.dataset import SpeechDataset
from asrlib.data.mixture import MixtureDataset
from asrlib.data.shard_index import INDEX, shard_index
from asrlib.data.utterance import Index, Utterance
from asrlib.files import read_jsonl, write_atomically, write_jsonl

FORMATS = ("i16", "flac")
BYTES_PER_SECOND = 2 * SAMPLE_RATE


def write_shards(
    dataset: SpeechDataset,
    out: Path | str,
    format: str = "i16",
    megabytes: float = 256,
    num_workers: int = 1,
) -> Index:
    """Writes the utterances of ``dataset``, as samples rounded to 16 bits, and returns their index.

    Args:
        out: a new folder, or one in which the same was begun.
        megabytes: of a shard, as 16-bit samples.
        num_workers: processes; 0 is 1.

    Raises:
        FileExistsError: ``out`` holds finished shards of other data. Unfinished ones are replaced.
        ValueError: an unknown format, or a mixture.
    """
    out = Path(out).absolute()
    if format not in FORMATS:
        raise ValueError(f"format={format}: choose one of {', '.join(FORMATS)}")
    if isinstance(dataset, MixtureDataset):
        raise ValueError("a mixture: prepare its parts one by one, and mix their shards")
    source = f"{dataset.fingerprint()} as {format} of {megabytes:g} MB"
    if (out / INDEX).is_file():
        if (found := read_jsonl(out / INDEX)[0]["source"]) != source:
            raise FileExistsError(f"{out} holds {found}, not {source}: choose another out")
        return shard_index(out)
    shares = list(_shares(dataset.utterances, megabytes * 1e6))
    paths = [out / f"shard-{number:05d}.{format}" for number in range(len(shares))]
    # spawn: workers without the caller's threads and locks
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(num_workers, 1), mp_context=spawn) as pool:
        writing = pool.map(_write_shard, shares, paths, [source] * len(paths))
        written = list(tqdm(writing, "shards", len(paths), disable=None))
    skipped, rows, sizes = dict(dataset.skipped), [], {}
    for path, (about, *utterances) in zip(paths, written, strict=True):
        skipped |= about["skipped"]
        sizes[path.name] = about["bytes"]
        rows += utterances
    write_jsonl(out / INDEX, [{"source": source, "bytes": sizes, "skipped": skipped}, *rows])
    # parts of the index, of other preparations that were given up, and of killed processes
    for path in {*out.glob("shard-*"), *out.glob(".*.tmp")} - {*paths}:
        path.unlink()
    return shard_index(out)


def _shares(utterances: Sequence[Utterance], most: float) -> Iterator[list[Utterance]]:
    """Cuts ``utterances`` into stretches of at most so many bytes, by their headers."""
    share: list[Utterance] = []
    size = 0.0
    for utterance in utterances:
        size += utterance.duration * BYTES_PER_SECOND
        if share and size > most:
            yield share
            share, size = [], utterance.duration * BYTES_PER_SECOND
        share.append(utterance)
    yield share


def _write_shard(utterances: Sequence[Utterance], path: Path, source: str) -> list[dict]:
    """Writes a shard and, after it, its part of the index, which is returned: [about, *utterances].

    If both are there already, from the same source, nothing is done.
    """
    index = path.with_suffix(".jsonl")
    if index.is_file():
        rows = read_jsonl(index)
        if (
            rows[0]["source"] == source
            and path.is_file()
            and path.stat().st_size == rows[0]["bytes"]
        ):
            return rows
    content, rows, skipped = bytearray(), [], {}
    for utterance in utterances:
        try:
            samples = to_int16(read_audio(utterance.path))
        except AudioError as error:
            skipped[utterance.path] = str(error)
            continue
        stored = samples.tobytes() if path.suffix == ".i16" else _as_flac(samples)
        place = f"{path.name}#{len(content)}:{len(stored)}:{zlib.crc32(stored):08x}"
        rows.append(asdict(replace(utterance, path=place)))
        content += stored
    write_atomically(path, content)
    rows.insert(0, {"source": source, "bytes": len(content), "skipped": skipped})
    write_jsonl(index, rows)
    return rows


def to_int16(samples: np.ndarray) -> np.ndarray:
    """float [S] in [-1, 1] → little-endian int16 [S], rounded, clipped at full scale."""
    return np.clip(np.round(samples * 32768.0), -32768, 32767).astype("<i2")


def _as_flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


@hydra.main(config_path="pkg://asrlib.configs", config_name="shards", version_base=None)
def main(config: DictConfig) -> None:
    from asrlib.build import build  # imported here: it builds models, too, which know no data

    dataset = build(config.datasets[config.part], training=config.part == "train")
    for reason, count in dataset.skipped_by_reason().items():
        print(f"left out {count}: {reason}", file=sys.stderr)
    index = write_shards(dataset, config.out, config.format, config.megabytes, config.num_workers)
    seconds = sum(u.duration for u in index.utterances)
    unread = len(dataset) - len(index.utterances)
    print(
        f"{config.out}: {len(index.utterances)} utterances, {seconds / 3600:.2f} hours; "
        f"{unread} could not be read"
    )


if __name__ == "__main__":
    sys.argv[1:] = readable(sys.argv[1:])
    main()
