"""One step of the optimiser, over the batches of all processes.

Design choices:

* The gradient is the sum of the losses of all batches over the sum of their counts, so that how an
  epoch is cut into batches, or shared out among processes, does not weigh utterances.
* The gradient norm is measured before clipping, and without the scale of a float16 loss.
* A step that cannot be taken leaves no trace but its count: weights, optimiser and running
  statistics are as they were. All processes know of it, and leave it out together.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from asrlib.data import SAMPLE_RATE
from asrlib.randomness import torch_seed
from asrlib.training import watch

if TYPE_CHECKING:
    from asrlib.training.trainer import Trainer


@dataclass
class Share:
    """What one process found in its batches of a step: sums, and what did not go well."""

    batches: int
    loss: float = 0.0
    parts: Counter = field(default_factory=Counter)
    samples: int = 0  # of all views
    infeasible: list[str] = field(default_factory=list)
    too_large: str | None = None  # the batch for which there was no memory


def take(trainer: Trainer, batches: list[dict]) -> dict[str, float] | None:
    """Learns from ``batches`` and those of the other processes.

    Returns:
        what was measured; None where nothing could be learned.

    Raises:
        FloatingPointError, MemoryError: as ``watch.note_bad_step``.
    """
    world, progress = trainer.world, trainer.progress
    unreadable = {item.utterance.id: item.reason for batch in batches for item in batch["skipped"]}
    batches = [batch for batch in batches if "audio" in batch]
    frames = [trainer.model.output_length(batch["audio_length"]) for batch in batches]
    own = sum(map(trainer.criterion.count, batches, frames))
    without = [id for batch in batches for id in batch["utterance_id"]] if own == 0 else []
    counts = world.gather((own, unreadable, without))
    for _, reasons, _ in counts:
        for id, reason in reasons.items():
            progress.unreadable[id] = reason
            world.tell(f"left out {id}: {reason}")
    count = sum(number for number, _, _ in counts)
    if count == 0:
        for _, _, ids in counts:
            _note_infeasible(trainer, ids)
        return None
    statistics = running_statistics(trainer)
    before = flatten(statistics)
    shares = world.gather(compute_gradients(trainer, batches, count))
    if too_large := [share.too_large for share in shares if share.too_large]:
        undo(trainer, statistics, before)
        torch.cuda.empty_cache()  # in pieces of the size that was tried, it may be of no more use
        watch.note_bad_step(trainer, watch.MEMORY, ", ".join(too_large), batches)
        return None
    loss = sum(share.loss for share in shares)
    norm = _update(trainer, may_step=math.isfinite(loss))
    if not math.isfinite(norm + loss):
        undo(trainer, statistics, before)
        if not (math.isfinite(loss) and _may_scale_less(trainer)):
            found = f"loss {loss / count}, gradient norm {norm}"
            watch.note_bad_step(trainer, watch.NOT_FINITE, found, batches)
        return None
    _share_statistics(trainer, statistics, before, [share.batches for share in shares])
    return _note(trainer, shares, count, norm)


def compute_gradients(trainer: Trainer, batches: list[dict], count: int) -> Share:
    """Adds the gradients of the summed losses over ``count``; running out of memory is noted."""
    rank = trainer.world.rank
    key = ("step", rank) if rank else ("step",)  # dropout is another in each process
    torch.manual_seed(torch_seed(trainer.seed, trainer.progress.step, *key))
    share = Share(len(batches))
    for batch in batches:
        try:
            _add_gradients(trainer, batch, count, share)
        except (MemoryError, RuntimeError) as error:
            if not watch.is_out_of_memory(error):
                raise
            share.too_large = watch.describe(batch)
        if share.too_large:  # beyond the exception, which holds on to what was computed
            break
    return share


def _add_gradients(trainer: Trainer, batch: dict, count: int, share: Share) -> None:
    model, criterion, precision = trainer.model, trainer.criterion, trainer.precision
    augment = partial(
        trainer.augmentations,
        epoch=trainer.progress.epoch,
        utterance_ids=batch["utterance_id"],
    )
    views = [partial(augment, view=view) for view in range(criterion.views)]
    audio = batch["audio"].to(model.device, non_blocking=True)
    with precision.autocast():
        output = model(audio, batch["audio_length"], *views, labels=batch)
    loss = criterion(batch | output)
    precision.scaler.scale(loss.total / count).backward()
    share.loss += loss.total.item()
    share.parts.update({name: part.item() for name, part in loss.parts.items()})
    share.samples += int(batch["audio_length"].sum()) * len(views)
    share.infeasible += [batch["utterance_id"][row] for row in loss.infeasible]


def _update(trainer: Trainer, may_step: bool) -> float:
    """Sums over processes, clips, steps if all is finite, clears the gradients; the norm before clipping."""
    scaler, optimizer = trainer.precision.scaler, trainer.optimizer
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    trainer.world.sum_gradients(parameters)
    scaler.unscale_(optimizer)
    limit = trainer.options.max_grad_norm
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit).item()
    if may_step and math.isfinite(norm):
        scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return norm


def _may_scale_less(trainer: Trainer) -> bool:
    """Whether gradients beyond float16's range are to be expected: its loss is scaled too high."""
    return trainer.precision.scaler.get_scale() > 1.0


def _note(trainer: Trainer, shares: list[Share], count: int, norm: float) -> dict[str, float]:
    """What a step measured, in ``progress`` and as the log will have it."""
    progress, parts = trainer.progress, Counter()
    for share in shares:
        parts.update(share.parts)
        _note_infeasible(trainer, share.infeasible)
    seconds = sum(share.samples for share in shares) / SAMPLE_RATE
    progress.step += 1
    progress.bad_in_a_row = 0
    progress.audio_seconds += seconds
    if trainer.average is not None:
        trainer.average.update()
    losses = {f"loss_{name}": part / count for name, part in parts.items()}
    loss = sum(share.loss for share in shares) / count
    return {"loss": loss, "grad_norm": norm, "seconds": seconds} | losses


def _note_infeasible(trainer: Trainer, ids: list[str]) -> None:
    infeasible = trainer.progress.infeasible
    for id in ids:
        if id not in infeasible:
            trainer.world.tell(f"left out {id}: more labels than frames for CTC")
        infeasible[id] = infeasible.get(id, 0) + 1


def running_statistics(trainer: Trainer) -> list[Tensor]:
    """Tensors of the encoder that a forward pass changes: means and variances of batch norm."""
    return [b for b in trainer.model.encoder.buffers() if b.is_floating_point()]


def flatten(tensors: list[Tensor]) -> Tensor | None:
    return torch.cat([tensor.flatten() for tensor in tensors]) if tensors else None


def _set(tensors: list[Tensor], flat: Tensor | None) -> None:
    if flat is not None:
        for tensor, values in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(values.view_as(tensor))


def undo(trainer: Trainer, statistics: list[Tensor], before: Tensor | None) -> None:
    """Forgets the gradients, and what the forward pass did to ``statistics``."""
    trainer.optimizer.zero_grad(set_to_none=True)
    _set(statistics, before)


def _share_statistics(
    trainer: Trainer, statistics: list[Tensor], before: Tensor | None, batches: list[int]
) -> None:
    """Each process saw its own batches: the mean of what changed, over those that had any."""
    world = trainer.world
    if world.size > 1 and before is not None:
        weight = bool(batches[world.rank]) / sum(map(bool, batches))
        _set(statistics, before + world.sum_((flatten(statistics) - before) * weight))
