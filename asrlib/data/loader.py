"""The loader of a dataset: batches in the sampler's order, whatever the number of workers."""

from torch.utils.data import DataLoader

from asrlib.data.collate import collate
from asrlib.data.dataset import SpeechDataset
from asrlib.data.sampler import BucketBatchSampler


def make_loader(
    dataset: SpeechDataset,
    batch_seconds: float,
    max_batch_size: int = 1024,
    num_workers: int = 0,
    seed: int = 0,
    shuffle: bool = False,
    pin_memory: bool = False,
) -> DataLoader:
    """Loads batches of at most ``batch_seconds`` of padded audio; ``shuffle`` for training.

    Choose the epoch with ``loader.batch_sampler.set_epoch``.
    """
    sampler = BucketBatchSampler(dataset.durations, batch_seconds, max_batch_size, seed, shuffle)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
    )
