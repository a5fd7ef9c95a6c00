"""Our batches beside lhotse's, for ``bench.data``: padding, mixing, and CPU seconds.

lhotse's DynamicBucketingSampler gets the same utterances and the same 160 seconds of padded audio a
batch, with 10 buckets (its default), 30 and 100. ``padding`` is the share of padded frames; ``repeated`` the
share of pairs of utterances in a batch that are together again in the next epoch: less is more random. Both
cut an epoch of all of DIR (or of the demo's dev), and one of ten thousand utterances whose durations are
drawn like speech's, into batches; and both load the FLAC files in batches, without augmentation.
"""

import functools
import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from asrlib.data import BucketBatchSampler, SpeechDataset
from asrlib.data.loader import make_loader
from asrlib.data.utterance import Index
from bench.train import in_a_process, peak_mb

BATCH_SECONDS = 160
BUCKETS = (10, 30, 100)
DRAWN = 10_000  # durations
EPOCHS = 3  # a process cuts and times

Batches = list[list[int]]  # of an epoch: indices of utterances


def timed(action: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    started = time.process_time()
    action()
    return time.process_time() - started


def padding(batches: Sequence[Sequence[int]], durations: np.ndarray) -> float:
    """The share of padded frames."""
    padded = sum(len(batch) * durations[batch].max() for batch in batches)
    return float(1 - durations[list(itertools.chain(*batches))].sum() / padded)


def repeated(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> float:
    """Of the pairs that share a batch in ``first``, the share that does so in ``second``."""
    pairs, others = (
        {pair for batch in batches for pair in itertools.combinations(sorted(batch), 2)}
        for batches in (first, second)
    )
    return len(pairs & others) / max(len(pairs), 1)


def our_batches(durations: np.ndarray) -> Callable[[int], Batches]:
    """epoch → its batches, by our sampler."""
    return BucketBatchSampler(lambda epoch: durations, BATCH_SECONDS).batches


def our_loading(index: Index) -> Callable[[int], Batches]:
    """epoch → its batches, after their audio was loaded."""
    loader = make_loader(SpeechDataset(index), BATCH_SECONDS, shuffle=True)

    def batches(epoch: int) -> Batches:
        loader.batch_sampler.set_epoch(epoch)
        return [[int(id) for id in batch["utterance_id"]] for batch in loader]

    return batches


def lhotse_batches(durations: np.ndarray, buckets: int) -> Callable[[int], Batches]:
    """As ``our_batches``, by lhotse."""
    from lhotse import MonoCut

    cuts = [MonoCut(str(i), 0, duration, 0) for i, duration in enumerate(durations.tolist())]
    return _lhotse(cuts, buckets, lambda batch: None)


def lhotse_loading(index: Index, buckets: int) -> Callable[[int], Batches]:
    """As ``our_loading``, by lhotse."""
    from lhotse import Recording
    from lhotse.dataset.collation import collate_audio

    recordings = [Recording.from_file(u.path, u.id) for u in index.utterances]
    cuts = [recording.to_cut().with_id(recording.id) for recording in recordings]
    return _lhotse(cuts, buckets, collate_audio)


def _lhotse(cuts: list, buckets: int, load: Callable) -> Callable[[int], Batches]:
    from lhotse import CutSet
    from lhotse.dataset import DynamicBucketingSampler

    warnings.filterwarnings("ignore", "You are using DynamicBucketingSampler with an eager")
    sampler = DynamicBucketingSampler(
        CutSet(cuts), max_duration=BATCH_SECONDS, num_buckets=buckets, shuffle=True
    )

    def batches(epoch: int) -> Batches:
        sampler.set_epoch(epoch)
        found = []
        for batch in sampler:
            load(batch)
            found.append([int(cut.id) for cut in batch])
        return found

    return batches


def time_epochs(make: Callable[[], Callable[[int], Batches]], answer) -> None:
    """Sends (CPU seconds of each epoch, batches of the first two, peak megabytes)."""
    batches, found, taken = make(), [], []
    for epoch in range(EPOCHS):
        taken.append(timed(lambda e=epoch: found.append(batches(e))))
    answer.send((taken, found[:2], peak_mb()))


def drawn_durations(count: int) -> np.ndarray:
    """Seconds with the mode at about 15 and a long tail of short ones, as in LibriSpeech."""
    return 1.5 + 15.5 * np.random.default_rng(5).beta(4.0, 1.5, count)


def comparison_rows(
    durations: np.ndarray, index: Index, rounds: int, buckets: Sequence[int]
) -> list[dict]:
    """Rows of both systems: ``sampler`` on ``durations`` and on drawn ones, ``loading`` of ``index``.

    The systems take turns, each in a process of its own: a machine that becomes slower meanwhile is so
    for all of them. Seconds are the median over epochs of all rounds.
    """
    loaded = np.array([utterance.duration for utterance in index.utterances])
    cases = [
        ("sampler", "recordings", our_batches, lhotse_batches, durations, durations),
        ("sampler", "drawn", our_batches, lhotse_batches, drawn := drawn_durations(DRAWN), drawn),
        ("loading", "recordings", our_loading, lhotse_loading, index, loaded),
    ]
    rows = []
    for measured, data, ours, theirs, what, seconds_of in cases:
        systems = {("asrlib", None): functools.partial(ours, what)}
        for count in (n for n in buckets if n <= len(seconds_of)):
            systems["lhotse", count] = functools.partial(theirs, what, count)
        turns = [
            {key: in_a_process(time_epochs, make) for key, make in systems.items()}
            for _ in range(rounds)
        ]
        for system, count in systems:
            taken, batches, peaks = zip(*(turn[system, count] for turn in turns), strict=True)
            first, second = batches[0]
            seconds, audio = statistics.median(itertools.chain(*taken)), float(seconds_of.sum())
            rows.append(
                {
                    "system": system,
                    "measured": measured,
                    "data": data,
                    "buckets": count,
                    "batch_seconds": BATCH_SECONDS,
                    "utterances": len(seconds_of),
                    "batches": len(first),
                    "padding": padding(first, seconds_of),
                    "repeated": repeated(first, second),
                    "audio_seconds": audio,
                    "seconds": seconds,
                    "audio_seconds_per_second": audio / seconds,
                    "peak_mb": max(peaks),
                }
            )
    return rows
