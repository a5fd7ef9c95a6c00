"""The worst batches first: what does not fit into memory should say so before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from asrlib.data import collate
from asrlib.training import step

if TYPE_CHECKING:
    from asrlib.training.trainer import Trainer


def try_worst_batches(trainer: Trainer) -> None:
    """Computes gradients of the largest and the longest batch of this epoch, and forgets them.

    Nothing in the training changes by it.

    Raises:
        MemoryError: there is not enough for one of them; the message says its shape.
    """
    epoch, dataset = trainer.progress.epoch, trainer.train_loader.dataset
    seconds = dataset.durations(epoch)
    batches = trainer.train_loader.batch_sampler.batches(epoch)
    largest = max(batches, key=lambda batch: len(batch) * seconds[batch].max())
    longest = max(batches, key=lambda batch: seconds[batch].max())
    statistics = step.running_statistics(trainer)
    before = step.flatten(statistics)
    for indices in [largest] if largest == longest else [largest, longest]:
        batch = collate([dataset[epoch, i] for i in indices])
        if "audio" not in batch:
            continue
        share = step.compute_gradients(trainer, [batch], count=1)
        step.undo(trainer, statistics, before)
        if share.too_large:
            torch.cuda.empty_cache()
            raise MemoryError(
                f"tried before training: no memory on {trainer.model.device} for {share.too_large}. Lower "
                f"trainer.batch_seconds (now {trainer.options.batch_seconds:g}) and, so that a step "
                "sees as much, raise trainer.accumulate"
            )
