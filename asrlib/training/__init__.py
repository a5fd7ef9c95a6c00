"""Training, evaluation, checkpoints, inference."""

from asrlib.training.inferencer import Inferencer
from asrlib.training.run import build_trainer, train
from asrlib.training.state import TrainerOptions
from asrlib.training.trainer import Trainer

__all__ = ["Inferencer", "Trainer", "TrainerOptions", "build_trainer", "train"]
