"""Sentences to estimate a language model from, or to measure one on; normalised."""

import gzip
import lzma
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf

from asrlib.build import build
from asrlib.configs import compose, override
from asrlib.text import normalize, unspoken

_OPENERS = {".gz": gzip.open, ".xz": lzma.open}


def file_sentences(paths: Iterable[Path]) -> Iterator[str]:
    """The lines of UTF-8 files (plain, ``.gz``, ``.xz``), each a sentence.

    A line with characters whose sound is not known, such as digits, is left out whole, as it is from
    training; their number is said.

    Raises:
        ValueError: a file that is cut short, or not in UTF-8.
    """
    for path in paths:
        left_out = 0
        with _OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as lines:
            for line in _read(path, lines):
                if unspoken(line):
                    left_out += 1
                elif text := normalize(line):
                    yield text
        if left_out:
            print(f"{path}: {left_out} lines left out for digits or the like", file=sys.stderr)


def _read(path: Path, lines: Iterable[str]) -> Iterator[str]:
    try:
        yield from lines
    except (EOFError, lzma.LZMAError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read to its end: {error}") from error


def training_sentences(dataset: str, root: str | None) -> list[str]:
    """The texts of the utterances that a training on ``dataset`` learns from, in their order.

    Args:
        dataset: one of ``asrlib/configs/datasets``.
        root: its folder, where the configuration names none.

    Raises:
        ValueError: no such dataset, or it needs a root, or it has no part for training.
        as the dataset does.
    """
    return _sentences(dataset, root, "train", training=True)


def dev_sentences(dataset: str, root: str | None) -> list[str]:
    """The texts of the dev part; arguments and errors as of ``training_sentences``."""
    return _sentences(dataset, root, "val")


def _sentences(dataset: str, root: str | None, part: str, **options: bool) -> list[str]:
    overrides = [f"datasets={dataset}", *([override("datasets.root", root)] if root else [])]
    try:
        datasets = compose("train", *overrides).datasets
    except HydraException as error:
        raise ValueError(f"dataset {dataset!r}: {error}") from error
    if OmegaConf.is_missing(datasets, "root"):
        raise ValueError(f"where is {dataset}? give its folder with --root")
    if part not in datasets:
        raise ValueError(f"{dataset} has no part {part!r}")
    utterances = build(datasets[part], **options).utterances
    return [utterance.text for utterance in utterances if utterance.text]
