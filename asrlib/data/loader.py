"""The loader of a dataset: batches in the sampler's order, whatever the number of workers.

A worker that dies (killed for memory, a crash in a decoder of audio) neither hangs nor ends the run:
new workers go on from the batch that is due. Since items hold no random state, it is the same batch.
"""

import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from torch.utils.data import DataLoader

from asrlib.data.collate import collate
from asrlib.data.dataset import SpeechDataset
from asrlib.data.sampler import BucketBatchSampler

MOST_DEATHS = 3  # without a batch between them


class BatchLoader:
    """Iterates over the batches of ``batch_sampler``, read in ``num_workers`` processes.

    Raises (when iterated):
        RuntimeError: workers die again and again at the same batch.
    """

    def __init__(
        self,
        dataset: SpeechDataset,
        batch_sampler: BucketBatchSampler,
        num_workers: int = 0,
        pin_memory: bool = False,
    ):
        self.dataset, self.batch_sampler = dataset, batch_sampler
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self._loader = self._load(batch_sampler)  # its workers stay from one epoch to the next

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[dict]:
        done, deaths, loader = 0, 0, self._loader
        while True:
            try:
                for batch in _quietly(loader):
                    yield batch
                    done, deaths = done + 1, 0
                return
            except (RuntimeError, OSError, EOFError) as error:
                if not (self.num_workers and _tells_of_a_death(error)):
                    raise
                if (deaths := deaths + 1) == MOST_DEATHS:
                    raise RuntimeError(
                        f"the loader's workers died {deaths} times at the same batch ({error}): is "
                        "memory or /dev/shm too small for them? Try fewer (num_workers), or 0"
                    ) from error
                print(f"{error}; new workers go on from their batch", file=sys.stderr)
            self._loader = self._load(self.batch_sampler)
            loader = self._load(list(self.batch_sampler)[done:])

    def _load(self, batches: BucketBatchSampler | Sequence[list[tuple[int, int]]]) -> DataLoader:
        return DataLoader(
            self.dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.pin_memory,
            worker_init_fn=_leave_interrupts_to_the_parent,
        )


def _tells_of_a_death(error: Exception) -> bool:
    """Whether a worker is gone: PyTorch noticed, or what it was handing over broke off.

    What a worker raised itself begins with "Caught".
    """
    if isinstance(error, RuntimeError):
        return re.search(r"DataLoader worker \(pid", str(error)) is not None
    broken = isinstance(error, (ConnectionError, EOFError, FileNotFoundError))
    return broken and not str(error).startswith("Caught ")


def _leave_interrupts_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _quietly(loader: DataLoader) -> Iterator[dict]:
    """Iterates so that the death of a worker is an error where its batch is due, and nowhere else.

    PyTorch handles SIGCHLD by an exception in whatever the main thread does then, which may be half
    of an optimiser's step. Without that handler it looks after its workers only while it waits for them.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            signal.signal(signal.SIGCHLD, handler)


def make_loader(
    dataset: SpeechDataset,
    batch_seconds: float,
    max_batch_size: int = 1024,
    num_workers: int = 0,
    seed: int = 0,
    shuffle: bool = False,
    pin_memory: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """Loads batches of at most ``batch_seconds`` of padded audio; ``shuffle`` for training.

    Choose the epoch with ``loader.batch_sampler.set_epoch``.
    """
    sampler = BucketBatchSampler(
        dataset.durations,
        batch_seconds,
        max_batch_size,
        seed,
        shuffle,
        rank=rank,
        world_size=world_size,
    )
    return BatchLoader(dataset, sampler, num_workers, pin_memory)
