"""What a training leaves in its folder, and how it goes on from there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from asrlib import checkpoint
from asrlib.training import changes
from asrlib.training.state import Progress

if TYPE_CHECKING:
    from asrlib.training.trainer import Trainer


def find_start(checkpoints: Path, may_resume: bool) -> Path | None:
    """The checkpoint from which a run with this folder goes on; None where it begins.

    Raises:
        FileExistsError: there is one, and ``trainer.resume`` is false.
        OSError: there are some, and all are damaged.
    """
    start = checkpoint.find_intact(checkpoints)
    if start is not None and not may_resume:
        raise FileExistsError(
            f"{checkpoints} holds a training and trainer.resume is false: "
            "choose another run_dir, or remove that folder"
        )
    return start


def refuse_changes(
    start: Path, config: DictConfig, facts: dict[str, str], accepted: Sequence[str]
) -> None:
    """Raises ``ValueError`` if a run that goes on from ``start`` would become another one."""
    state, asked = checkpoint.read_state(start), config.trainer.precision
    begun = state["precision"] or asked  # "" before the first step
    then = {"trainer.precision": begun} | state.get("facts", {})
    now = {"trainer.precision": begun if asked == "auto" else asked} | facts
    changes.refuse_changes(OmegaConf.load(start / "config.yaml"), config, then, now, accepted)


def save(trainer: Trainer, is_best: bool = False) -> Path:
    """Writes ``best`` if it is, and ``step-…``, from which training can go on; removes the oldest.

    In this order: a run that is killed between the two evaluates again, and finds that it is the best.
    """
    progress, average = trainer.progress, trainer.average
    progress.loss_scale = trainer.precision.scaler.state_dict()
    progress.averaged_steps = average.updates if average else 0
    path = trainer.checkpoints / f"step-{progress.step:08d}"
    if trainer.world.is_first:
        write = partial(
            checkpoint.save_checkpoint,
            model=trainer.model,
            config=trainer.config,
            text_encoder=trainer.text_encoder,
            state=asdict(progress),
            average=average.tensors if average else None,
        )
        if is_best:
            write(trainer.checkpoints / "best")
        write(path, optimizer=trainer.optimizer)
        checkpoint.keep_latest(trainer.checkpoints, trainer.options.keep_checkpoints)
    return path


def resume(trainer: Trainer, start: Path) -> None:
    """Puts ``trainer`` where its run stopped with the checkpoint ``start``."""
    trainer.model.encoder.load_state_dict(checkpoint.read_weights(start, raw=True))
    checkpoint.load_optimizer(start, trainer.optimizer)
    state = checkpoint.read_state(start)
    state.pop("optimizer")
    state.setdefault("rows", math.inf)  # of a log that was not counted yet
    now = {"command": trainer.progress.command, "facts": trainer.progress.facts}
    trainer.progress = Progress(**state | now)
    if trainer.average is not None:  # of a run that had none before, the average begins here
        trainer.average.restore(checkpoint.read_weights(start), trainer.progress.averaged_steps)
