"""Batches of utterances of about equal duration, filled by seconds of padded audio.

More than half of a naive batch is padding, so utterances are sorted by duration before they are cut
into batches. To mix the batches from one epoch to the next, each duration is first jittered by a
few percent. The order is a function of (seed, epoch) alone, and every utterance of the epoch comes once.

Several processes share the batches out in turn: of W, the one with rank r gets number r, r + W, r + 2W …
of what is left of the epoch. W batches, one in each process, are then those that one process would
have taken one after the other, and some ranks get one batch less than others.
"""

from collections.abc import Callable, Iterator

import numpy as np

from asrlib.randomness import generator


class BucketBatchSampler:
    """Yields batches of (epoch, index), the keys of ``SpeechDataset``.

    Args:
        durations: epoch → seconds of every utterance, float [N]; zero where it is not in the epoch.
        batch_seconds: the longest utterance of a batch times its size is at most this; an utterance
            that is longer on its own is a batch of its own.
        max_batch_size: at most so many utterances.
        seed: with the epoch, decides everything.
        shuffle: jitter and shuffle (training); otherwise longest first, so that what does not fit
            into memory fails at once.
        jitter: durations are multiplied by a uniform factor from 1 ± jitter before sorting.
        rank, world_size: which share of the batches iteration yields; all of them unless given.
    """

    def __init__(
        self,
        durations: Callable[[int], np.ndarray],
        batch_seconds: float,
        max_batch_size: int = 1024,
        seed: int = 0,
        shuffle: bool = True,
        jitter: float = 0.05,
        rank: int = 0,
        world_size: int = 1,
    ):
        if batch_seconds <= 0 or max_batch_size < 1:
            raise ValueError("batch_seconds must be positive and max_batch_size at least 1")
        self.durations, self.batch_seconds = durations, batch_seconds
        self.max_batch_size, self.seed = max_batch_size, seed
        self.shuffle, self.jitter = shuffle, jitter
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = 0, 0
        self._newest: tuple[int, list[list[int]]] | None = None  # epoch and its batches

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Chooses the epoch that iteration yields, from batch number ``start`` of all on."""
        self.epoch, self.start = epoch, start

    def batches(self, epoch: int) -> list[list[int]]:
        """All batches of ``epoch`` in order, whatever the rank: a partition of its utterances."""
        if self._newest is None or self._newest[0] != epoch:
            self._newest = epoch, self._cut(epoch)
        return self._newest[1]

    def _cut(self, epoch: int) -> list[list[int]]:
        durations = self.durations(epoch)
        rng = generator(self.seed, epoch, "batches")
        keys = durations
        if self.shuffle:
            keys = durations * rng.uniform(1 - self.jitter, 1 + self.jitter, len(durations))
        batches: list[list[int]] = []
        longest = np.inf
        order = np.argsort(-keys, kind="stable")
        for i in order[durations[order] > 0].tolist():
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
        for batch in self._share():
            yield [(self.epoch, i) for i in batch]

    def __len__(self) -> int:
        return len(self._share())

    def _share(self) -> list[list[int]]:
        return self.batches(self.epoch)[self.start + self.rank :: self.world_size]
