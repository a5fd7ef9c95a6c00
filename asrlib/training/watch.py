"""Bad days of a training: batches that cannot be learned from, and too many of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from asrlib.data import SAMPLE_RATE
from asrlib.files import folder_written_atomically

if TYPE_CHECKING:
    from asrlib.training.trainer import Trainer

NOT_FINITE = "loss or gradient not finite"
MEMORY = "out of memory"
MOST_SAVED = 20  # bad batches in a run's folder


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of a GPU or of the machine, is what was missing."""
    # the libraries on a GPU, and the CPU's allocator, have no type of their own for it
    told = ("ALLOC_FAILED", "can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)


def describe(batch: dict) -> str:
    """The shape of a batch: what its memory depends on."""
    utterances, samples = batch["audio"].shape
    seconds = samples / SAMPLE_RATE
    return (
        f"{utterances} utterances × {seconds:.1f} s = {utterances * seconds:.0f} s "
        f"of padded audio, {batch['text_encoded'].shape[1]} labels"
    )


def note_bad_step(trainer: Trainer, kind: str, what: str, batches: list[dict]) -> None:
    """Counts and tells a step that was left out; keeps its batches where their content is to blame.

    Raises:
        FloatingPointError, MemoryError: ``trainer.max_bad_steps`` in a row.
    """
    progress, options = trainer.progress, trainer.options
    progress.bad_steps[kind] = progress.bad_steps.get(kind, 0) + 1
    progress.bad_in_a_row += 1
    where = trainer.run_dir / "bad_batches"
    if kind == NOT_FINITE:
        _save(trainer, what, batches)
        remedy = f"lower optimizer.lr, or look at the batches in {where}"
    else:
        remedy = f"lower trainer.batch_seconds (now {options.batch_seconds:g})"
    trainer.world.tell(f"left out a step after step {progress.step}: {kind} ({what})")
    if progress.bad_in_a_row >= options.max_bad_steps:
        error = FloatingPointError if kind == NOT_FINITE else MemoryError
        raise error(
            f"{progress.bad_in_a_row} steps in a row had to be left out after step {progress.step}, "
            f"the last for {kind} ({what}): {remedy}"
        )


def _save(trainer: Trainer, what: str, batches: list[dict]) -> None:
    """Writes ``bad_batches/after-step-STEP-…``: tensors, and JSON that says whose they are."""
    folder, progress = trainer.run_dir / "bad_batches", trainer.progress
    for number, batch in enumerate(batches):
        if len(list(folder.glob("*"))) >= MOST_SAVED:
            return
        bad = progress.bad_steps[NOT_FINITE]
        name = f"after-step-{progress.step:08d}-{bad}-{trainer.world.rank}-{number}"
        about = {
            "what": what,
            "epoch": progress.epoch,
            "batches_done": progress.batches_done,
            **{key: batch[key] for key in ("utterance_id", "audio_path", "text")},
        }
        with folder_written_atomically(folder / name) as written:
            save_file(
                {k: v for k, v in batch.items() if torch.is_tensor(v)},
                written / "batch.safetensors",
            )
            (written / "batch.json").write_text(json.dumps(about, ensure_ascii=False, indent=1))


def require_something_to_learn(trainer: Trainer) -> None:
    """After an epoch without a step.

    Raises:
        ValueError: every utterance was left out, so no other epoch would have one.
    """
    progress = trainer.progress
    left_out = progress.infeasible.keys() | progress.unreadable.keys()
    if all(u.id in left_out for u in trainer.train_loader.dataset.utterances):
        raise ValueError(
            "an epoch without a step: no recording can be read that has as many frames as CTC needs for "
            "its text. What was left out stands above; a model that subsamples less, or pieces of words "
            "(text_encoder=bpe), need fewer frames a label"
        )
