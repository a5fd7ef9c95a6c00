"""What a training is told, and where it stands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


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
    num_workers: int = 1
    device: str = "auto"
    precision: str = "auto"  # of autocast: fp32, bf16 or fp16; auto is the fastest on the device
    average: float | None = None  # decay of the running average of weights; null is none
    compile: bool = False  # the encoder, by torch.compile
    freeze: Sequence[str] = ()  # modules or parameters of the encoder that are not trained
    resume: bool = True

    def __post_init__(self):
        for name in ("epochs", "batch_seconds", "accumulate", "eval_every", "log_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"trainer.{name} must be positive, not {getattr(self, name)}")
        if self.average is not None and not 0 < self.average < 1:
            raise ValueError(f"trainer.average must be between 0 and 1, not {self.average}")


@dataclass
class Progress:
    """Where a training stands: all that ``state.json`` needs beside weights and optimiser."""

    epoch: int = 0  # epochs completed
    step: int = 0  # optimiser steps taken
    best_wer: float = math.inf
    best_cer: float = math.inf
    best_epoch: int = 0
    evaluations_since_best: int = 0
    # through the encoder in training: after changes of speed, each view, without padding
    audio_seconds: float = 0.0
    train_seconds: float = 0.0  # wall time, evaluation included
    finished: bool = False
    command: str = ""
    precision: str = ""  # in which it began, and goes on
    loss_scale: dict = field(default_factory=dict)  # of fp16
    averaged_steps: int = 0  # in the running average of weights
    infeasible: dict[str, int] = field(default_factory=dict)  # utterance id: times left out
    unreadable: dict[str, str] = field(default_factory=dict)  # utterance id: reason
