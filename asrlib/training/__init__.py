"""Training, evaluation, checkpoints, inference."""

from asrlib.training.inferencer import Inferencer
from asrlib.training.run import build_trainer, train
from asrlib.training.trainer import Trainer, TrainerOptions

__all__ = ["Inferencer", "Trainer", "TrainerOptions", "build_trainer", "train"]
