"""Batches of utterances of about equal duration, filled by seconds of padded audio.

More than half of a naive batch is padding, so utterances are sorted by duration before they are cut
into batches. To mix the batches from one epoch to the next, each duration is first jittered by a
few percent. The order is a function of (seed, epoch) alone, and every utterance comes exactly once.
"""

from collections.abc import Callable, Iterator

import numpy as np

from asrlib.randomness import generator


class BucketBatchSampler:
    """Yields batches of (epoch, index), the keys of ``SpeechDataset``.

    Args:
        durations: epoch → seconds of every utterance in it, float [N].
        batch_seconds: the longest utterance of a batch times its size is at most this; an utterance
            that is longer on its own is a batch of its own.
        max_batch_size: at most so many utterances.
        seed: with the epoch, decides everything.
        shuffle: jitter and shuffle (training); otherwise longest first, so that what does not fit
            into memory fails at once.
        jitter: durations are multiplied by a uniform factor from 1 ± jitter before sorting.
    """

    def __init__(
        self,
        durations: Callable[[int], np.ndarray],
        batch_seconds: float,
        max_batch_size: int = 1024,
        seed: int = 0,
        shuffle: bool = True,
        jitter: float = 0.05,
    ):
        if batch_seconds <= 0 or max_batch_size < 1:
            raise ValueError("batch_seconds must be positive and max_batch_size at least 1")
        self.durations, self.batch_seconds = durations, batch_seconds
        self.max_batch_size, self.seed = max_batch_size, seed
        self.shuffle, self.jitter = shuffle, jitter
        self.epoch, self.start = 0, 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Chooses the epoch that iteration yields, from batch number ``start`` on."""
        self.epoch, self.start = epoch, start

    def batches(self, epoch: int) -> list[list[int]]:
        """All batches of ``epoch`` in order: a partition of range(N)."""
        durations = self.durations(epoch)
        rng = generator(self.seed, epoch, "batches")
        keys = durations
        if self.shuffle:
            keys = durations * rng.uniform(1 - self.jitter, 1 + self.jitter, len(durations))
        batches: list[list[int]] = []
        longest = np.inf
        for i in np.argsort(-keys, kind="stable").tolist():
            longest = max(longest, durations[i])
            size = len(batches[-1]) + 1 if batches else np.inf
            if size > self.max_batch_size or longest * size > self.batch_seconds:
                batches.append([])
                longest = durations[i]
            batches[-1].append(i)
        if self.shuffle:
            rng.shuffle(batches)
        return batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self.batches(self.epoch)[self.start :]:
            yield [(self.epoch, i) for i in batch]

    def __len__(self) -> int:
        return len(self.batches(self.epoch)) - self.start
