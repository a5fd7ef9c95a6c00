"""What a training leaves in its folder, and how it goes on from there."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from asrlib import checkpoint
from asrlib.training.state import Progress

if TYPE_CHECKING:
    from asrlib.training.trainer import Trainer


def save(trainer: Trainer, is_best: bool) -> None:
    """Writes ``step-…``, from which training can go on, and ``best`` if it is; removes the oldest."""
    progress, average = trainer.progress, trainer.average
    progress.loss_scale = trainer.precision.scaler.state_dict()
    progress.averaged_steps = average.updates if average else 0
    write = partial(
        checkpoint.save_checkpoint,
        model=trainer.model,
        config=trainer.config,
        text_encoder=trainer.text_encoder,
        state=asdict(progress),
        average=average.tensors if average else None,
    )
    write(trainer.checkpoints / f"step-{progress.step:08d}", optimizer=trainer.optimizer)
    if is_best:
        write(trainer.checkpoints / "best")
    checkpoint.keep_latest(trainer.checkpoints, trainer.options.keep_checkpoints)


def resume(trainer: Trainer) -> str | None:
    """Puts ``trainer`` where its run stopped; the name of that checkpoint, None at a beginning.

    Raises:
        FileExistsError: there is one, and ``trainer.resume`` is false.
    """
    latest = checkpoint.find_latest(trainer.checkpoints)
    if latest is None:
        return None
    if not trainer.options.resume:
        raise FileExistsError(
            f"{trainer.checkpoints} holds a training and trainer.resume is false: "
            "choose another run_dir, or remove that folder"
        )
    trainer.model.encoder.load_state_dict(checkpoint.read_weights(latest, raw=True))
    checkpoint.load_optimizer(latest, trainer.optimizer)
    state = checkpoint.read_state(latest)
    state.pop("optimizer")
    trainer.progress = Progress(**state | {"command": trainer.progress.command})
    if trainer.average is not None:  # of a run that had none before, the average begins here
        trainer.average.restore(checkpoint.read_weights(latest), trainer.progress.averaged_steps)
    trainer.writer.rewind(trainer.progress.step)
    return latest.name
