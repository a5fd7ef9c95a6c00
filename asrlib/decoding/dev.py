"""What weights of decoding are chosen on: dev and never test, in halves that share no speaker."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from asrlib.build import build, texts_in
from asrlib.data import Utterance
from asrlib.data.dataset import SpeechDataset
from asrlib.decoding.longform import WINDOW_SECONDS

# test, tests, test2, test-clean, test_other, an4_test; but not latest, nor test_of_something
TEST = re.compile(r"test-.*|(.+[-_ .])?tests?(\d*|[-_ .](clean|other).*)", re.IGNORECASE)


def dev_part(datasets: DictConfig, part: str) -> SpeechDataset:
    """The part of ``datasets``.

    Raises:
        ValueError: there is none, or it is of test, by its own name or that of a file or folder.
    """
    if datasets.get(part) is None:
        raise ValueError(f"datasets={datasets.name} has no part {part}")
    _refuse_test(part, *(text for _, text in texts_in(datasets[part])))
    dataset = build(datasets[part], max_item_seconds=WINDOW_SECONDS)
    for folder in {os.path.dirname(u.path) for u in dataset.utterances}:
        # what names a part (dev-clean/SPEAKER/CHAPTER), not what a corpus of all parts is called
        _refuse_test(
            *(os.path.join(*Path(p).parts[-3:]) for p in (folder, os.path.realpath(folder)))
        )
    return dataset


def _refuse_test(*names: str) -> None:
    """Refuses a name or path that calls itself test, as ``test``, ``DIR/test-clean`` or ``test.jsonl``.

    Below the current folder only what comes after it counts: where a person works is no data.
    """
    for name in names:
        inside = os.path.isabs(name) and not os.path.relpath(name).startswith("..")
        parts = Path(os.path.relpath(name) if inside else os.path.normpath(name)).parts
        for part in parts:
            if TEST.fullmatch(part) or TEST.fullmatch(Path(part).stem):
                raise ValueError(
                    f"{name} is test data ({part}): weights are chosen on dev, or the test says nothing "
                    "about data that were never seen. Tune on a dev part (tune.part, datasets)"
                )


def require_texts(utterances: Sequence[Utterance], data: str) -> None:
    if not any(u.text.split() for u in utterances):
        raise ValueError(f"{data} has no transcripts: weights are chosen by the error rate")


def halves_by_speaker(utterances: Sequence[Utterance]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two pairs of places in ``utterances``, to tune on and to score, that share no speaker.

    Speakers are dealt in the order of their names: the first, third … are one half.

    Raises:
        ValueError: fewer than two speakers, or one that is not known.
    """
    speakers = sorted({u.speaker for u in utterances if u.speaker is not None})
    if len(speakers) < 2 or any(u.speaker is None for u in utterances):
        raise ValueError(
            f"tune.cross needs two or more speakers, and that of every utterance; known: {speakers} "
            "(where ids tell them, speaker_pattern of the dataset reads them)"
        )
    first = np.array([speakers.index(u.speaker) % 2 == 0 for u in utterances])
    one, other = np.flatnonzero(first), np.flatnonzero(~first)
    return [(one, other), (other, one)]
