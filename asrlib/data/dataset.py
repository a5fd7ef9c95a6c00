"""Datasets: an index, and how an utterance of it becomes an item of a batch.

A dataset holds no random state: item ``(epoch, i)`` is the same on every worker and in every run.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from asrlib.data.audio import SAMPLE_RATE, AudioError, read_audio, stream_audio
from asrlib.data.common_voice import common_voice_index
from asrlib.data.custom_dir import custom_dir_index
from asrlib.data.librispeech import librispeech_index
from asrlib.data.manifest import manifest_index
from asrlib.data.shard_index import shard_index
from asrlib.data.utterance import Index, Utterance
from asrlib.files import read_text
from asrlib.randomness import generator
from asrlib.text import CTCTextEncoder, normalize, unspoken

if TYPE_CHECKING:  # augmentations read audio: importing them here would close a circle
    from asrlib.augmentations import WaveformAugmentations


@dataclass(frozen=True)
class Item:
    """One utterance, ready for the collate function."""

    utterance: Utterance  # its text normalised
    audio: np.ndarray  # float32 [S]
    tokens: tuple[int, ...] | None  # label ids [U], or None where the text is not known


@dataclass(frozen=True)
class SkippedItem:
    """An utterance whose audio turned out to be unusable when it was read."""

    utterance: Utterance
    reason: str


@dataclass(frozen=True)
class LongItem:
    """An utterance too long for a batch, to be read in windows."""

    utterance: Utterance
    audio: np.ndarray | None = None  # float32 [S] where it was augmented, and so had to be read

    def pieces(self) -> Iterable[np.ndarray]:
        """Its audio, float32 [n] each; raises as ``stream_audio``."""
        return stream_audio(self.utterance.path) if self.audio is None else [self.audio]


class SpeechDataset(torch.utils.data.Dataset):
    """Utterances of an index, in its order.

    Args:
        index: what to read, and what was left out already.
        text_encoder: makes ``tokens``; without it (inference) there are none. May be set later, as it
            may have to be learned from the texts.
        augmentations: applied to the waveform of every item; for dev and test only ``fixed`` ones.
        training: leave out utterances that cannot be trained on: without words, with characters
            whose sound is unknown (``asrlib.text.unspoken``), or outside the durations below.
            Never set for dev and test, whose errors count whatever they hold.
        min_duration, max_duration: seconds, for training.
        only: a file of ids, one on each line, to keep only these, in the index's order; an id that is not
            there is left out by name. So a published row's utterances can be had of a whole corpus.
        limit: keep only this many, the first; at least 1.
        max_item_seconds: longer utterances become a ``LongItem``, without being read unless they
            are augmented (inference).
        seed: of the run, for what ``text_encoder`` draws; training only.

    Raises:
        FileNotFoundError: no file ``only``.
        ValueError: nothing is left to read.
    """

    def __init__(
        self,
        index: Index,
        text_encoder: CTCTextEncoder | None = None,
        augmentations: "WaveformAugmentations | None" = None,
        training: bool = False,
        min_duration: float = 0.1,
        max_duration: float = 30.0,
        only: str | None = None,
        limit: int | None = None,
        max_item_seconds: float | None = None,
        seed: int | None = None,
    ):
        self.max_item_seconds, self.seed = max_item_seconds, seed
        self.text_encoder, self.augmentations = text_encoder, augmentations
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit}: at least 1, or null for all")
        if only is not None:
            index = _only(index, only)
        self.skipped = dict(index.skipped)  # path or id → reason, with details in parentheses
        self.utterances: list[Utterance] = []
        for utterance in index.utterances[:limit]:
            reason = _untrainable(utterance, min_duration, max_duration) if training else None
            if reason:
                self.skipped[utterance.id] = reason
                continue
            text = None if utterance.text is None else normalize(utterance.text)
            self.utterances.append(replace(utterance, text=text))
        if not self.utterances:
            named = "; ".join(f"{key}: {why}" for key, why in list(self.skipped.items())[:3])
            raise ValueError(
                f"no usable utterance; left out: {dict(self.skipped_by_reason())}, such as {named or 'none'}"
            )

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, key: tuple[int, int]) -> Item | SkippedItem | LongItem:
        """The item of (epoch, index)."""
        epoch, i = key
        utterance, longest = self.utterances[i], self.max_item_seconds
        try:
            audio = read_audio(utterance.path, None if self.augmentations else longest)
        except AudioError as error:
            return SkippedItem(utterance, str(error))
        if audio is None:
            return LongItem(utterance)
        if self.augmentations is not None:
            audio = self.augmentations(audio, epoch, utterance.id)
            if longest is not None and len(audio) > longest * SAMPLE_RATE:
                return LongItem(utterance, audio)
        return Item(utterance, audio, self._tokens(epoch, utterance))

    def skipped_by_reason(self) -> Counter[str]:
        """How many were left out for each reason, without its details."""
        return Counter(
            reason.removeprefix(f"{key}: ").split(" (")[0] for key, reason in self.skipped.items()
        )

    def _tokens(self, epoch: int, utterance: Utterance) -> tuple[int, ...] | None:
        if self.text_encoder is None or utterance.text is None:
            return None
        rng = None
        if self.seed is not None:
            rng = generator(self.seed, epoch, utterance.id, "bpe_dropout")
        return tuple(self.text_encoder.encode(utterance.text, rng))

    def fingerprint(self) -> str:
        """Changes with the utterances: their ids, texts, durations and order; not with where they are."""
        told = hashlib.blake2b(digest_size=8)
        for u in self.utterances:
            told.update(repr((u.id, u.text, u.duration)).encode())
        return f"{len(self)} utterances ({told.hexdigest()})"

    def durations(self, epoch: int) -> np.ndarray:
        """Seconds of every utterance in ``epoch``, its change of speed included: float64 [N].

        Zero where it is not in this epoch.
        """
        durations = np.array([u.duration for u in self.utterances])
        if self.augmentations is not None:
            factor = self.augmentations.duration_factor
            durations = durations * [factor(epoch, u.id) for u in self.utterances]
        return durations


def _only(index: Index, path: str) -> Index:
    """What of ``index`` the file names."""
    lines = map(str.strip, read_text(Path(path)).split("\n"))
    wanted = dict.fromkeys(filter(None, lines))  # in the file's order
    kept = [u for u in index.utterances if u.id in wanted]
    there = {u.id for u in kept}
    missing = {
        id: f"{id}: the data do not have it (it is named in {path})"
        for id in wanted
        if id not in there
    }
    return Index(kept, index.skipped | missing)


def _untrainable(utterance: Utterance, min_duration: float, max_duration: float) -> str | None:
    if utterance.text is None:
        return "no transcript"
    if characters := unspoken(utterance.text):
        return f"its text has characters whose sound is not known ({characters!r})"
    if not normalize(utterance.text):
        return "its text is empty"
    if not min_duration <= utterance.duration <= max_duration:
        return f"not {min_duration}–{max_duration} s long ({utterance.duration:.2f} s)"
    return None


class LibriSpeechDataset(SpeechDataset):
    """Parts of a corpus in LibriSpeech's layout (``asrlib.data.librispeech``)."""

    def __init__(self, data_dir: str, parts: Sequence[str], **options):
        super().__init__(librispeech_index(data_dir, parts), **options)


class CustomDirDataset(SpeechDataset):
    """``DIR/audio`` with optional ``DIR/transcriptions`` (``asrlib.data.custom_dir``)."""

    def __init__(self, data_dir: str, speaker_pattern: str | None = None, **options):
        super().__init__(custom_dir_index(data_dir, speaker_pattern), **options)


class CommonVoiceDataset(SpeechDataset):
    """A part of Common Voice (``asrlib.data.common_voice``); training keeps apart from dev and test."""

    def __init__(self, data_dir: str, part: str, training: bool = False, **options):
        apart_from = ("dev", "test") if training else ()
        index = common_voice_index(data_dir, part, apart_from)
        super().__init__(index, training=training, **options)


class ManifestDataset(SpeechDataset):
    """A JSON-lines manifest (``asrlib.data.manifest``)."""

    def __init__(self, path: str, **options):
        super().__init__(manifest_index(path), **options)


class ShardDataset(SpeechDataset):
    """What ``asrlib.data.shards`` wrote into a folder, which may be read-only."""

    def __init__(self, data_dir: str, **options):
        super().__init__(shard_index(data_dir), **options)


class DemoDataset(LibriSpeechDataset):
    """A part of the synthetic corpus, which is made in ``data_dir`` on first use."""

    def __init__(self, data_dir: str, part: str, **options):
        # imported here: it needs espeak-ng's wheel, which is no requirement of the library
        from asrlib.data.demo import ensure_demo_corpus

        super().__init__(str(ensure_demo_corpus(data_dir)), [part], **options)
