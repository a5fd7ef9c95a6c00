"""Batches of utterances of about equal duration, filled by seconds of padded audio.

More than half of a naive batch is padding, so utterances are sorted by duration before they are cut
into batches. To mix the batches from one epoch to the next, each utterance first moves among its neighbours
in that order: by a few batches, more of them the more there are (as the square root of their number, so
that with more data there is less padding and more mixing), and not to where durations differ by more than a
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
        shuffle: mix neighbours, and shuffle the batches (training); otherwise longest first, so that
            what does not fit into memory fails at once.
        jitter: an utterance moves at most to where durations are 1 ± jitter times its own.
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
        there = np.flatnonzero(durations)
        keys = self._mixed(durations[there], rng) if self.shuffle else durations[there]
        batches: list[list[int]] = []
        longest = np.inf
        for i in there[np.argsort(-keys, kind="stable")].tolist():
            longest = max(longest, durations[i])
            size = len(batches[-1]) + 1 if batches else np.inf
            if size > self.max_batch_size or longest * size > self.batch_seconds:
                batches.append([])
                longest = durations[i]
            batches[-1].append(i)
        if self.shuffle:
            rng.shuffle(batches)
        return batches

    def _mixed(self, durations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Places in the order from shortest to longest, in batches before it, after a random move [N]."""
        ordered = np.sort(durations)
        share = np.maximum(ordered / self.batch_seconds, 1 / self.max_batch_size)  # of a batch
        before = np.concatenate([[0.0], np.cumsum(share)])

        def place(seconds: np.ndarray, side: str) -> np.ndarray:
            return before[np.searchsorted(ordered, seconds, side)]

        own = rng.uniform(place(durations, "left"), place(durations, "right"))  # among its equals
        reach = np.sqrt(before[-1]) / 4
        lowest = np.maximum(place(durations * (1 - self.jitter), "left"), own - reach)
        highest = np.minimum(place(durations * (1 + self.jitter), "right"), own + reach)
        return rng.uniform(lowest, highest)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._share():
            yield [(self.epoch, i) for i in batch]

    def __len__(self) -> int:
        return len(self._share())

    def _share(self) -> list[list[int]]:
        return self.batches(self.epoch)[self.start + self.rank :: self.world_size]
