"""What a training is told, and where it stands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

POSITIVE = (
    *("epochs", "batch_seconds", "accumulate", "eval_every", "log_every", "keep_checkpoints"),
    "max_grad_norm",
    *("early_stop", "save_every_minutes", "max_hours", "max_bad_steps"),
)


@dataclass(frozen=True)
class TrainerOptions:
    """The section ``trainer`` of the configuration."""

    epochs: int
    batch_seconds: float = 160.0  # of padded audio in a batch
    max_batch_size: int = 256
    accumulate: int = 1  # batches in a step
    max_grad_norm: float = 5.0
    eval_every: int = 1  # epochs
    early_stop: int | None = None  # evaluations without a better WER on dev
    log_every: int = 10  # steps
    log_samples: int = 10  # random utterances of train and dev in the tables
    keep_checkpoints: int = 2
    save_every_minutes: float | None = 10.0  # beside after each evaluation; null: only then
    max_hours: float | None = None  # of this sitting; then it stops with a checkpoint
    max_bad_steps: int = (
        10  # in a row, without a finite loss and gradient or memory, before it gives up
    )
    try_worst: bool | None = None  # batches, before training; null: on a GPU
    num_workers: int = 1
    device: str = "auto"
    precision: str = "auto"  # of autocast: fp32, bf16 or fp16; auto is the fastest on the device
    average: float | None = None  # decay of the running average of weights; null is none
    compile: bool = False  # the encoder, by torch.compile
    graphs: bool = False  # the encoder, by CUDA graphs
    freeze: Sequence[str] = ()  # modules or parameters of the encoder that are not trained
    resume: bool = True
    accept_changes: Sequence[str] = ()  # of the configuration since the run began: keys or sections

    def __post_init__(self):
        if self.compile and self.graphs:
            raise ValueError("trainer.compile and trainer.graphs exclude each other: choose one")
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"trainer.{name} must be positive, not {value}")
        if self.average is not None and not 0 < self.average < 1:
            raise ValueError(f"trainer.average must be between 0 and 1, not {self.average}")


@dataclass
class Progress:
    """Where a training stands: all that ``state.json`` needs beside weights and optimiser."""

    epoch: int = 0  # epochs completed, their evaluation included
    batches_done: int = 0  # of the epoch after them, by all processes
    step: int = 0  # optimiser steps taken
    best_wer: float = math.inf
    best_cer: float = math.inf
    best_epoch: int = 0
    evaluations_since_best: int = 0
    # These count from the first step of the first stage, where a run began from another's weights.
    # Through the encoder in training: after changes of speed, each view, without padding
    audio_seconds: float = 0.0
    train_seconds: float = 0.0  # wall time, evaluation included
    devices: list[str] = field(default_factory=list)  # by name, each once
    finished: bool = False  # false after a training stopped early
    command: str = ""
    earlier: list[str] = field(default_factory=list)  # commands of the stages before
    precision: str = ""  # in which it began, and goes on
    loss_scale: dict = field(default_factory=dict)  # of fp16
    averaged_steps: int = 0  # in the running average of weights
    infeasible: dict[str, int] = field(default_factory=dict)  # utterance id: times left out
    unreadable: dict[str, str] = field(default_factory=dict)  # utterance id: reason
    bad_steps: dict[str, int] = field(default_factory=dict)  # what was wrong: how often
    bad_in_a_row: int = 0
    # what the log has: rows, and what the steps since the last one measured, in so many seconds
    rows: float = 0
    measured: list[dict[str, float]] = field(default_factory=list)
    measured_seconds: float = 0.0
    # what the run is made of beside its configuration: the key that stands for it, and what it is
    facts: dict[str, str] = field(default_factory=dict)
