"""Acoustic models: features and lengths in, ``log_probs`` and lengths out."""

from asrlib.model.acoustic import AcousticModel
from asrlib.model.deepspeech2 import DeepSpeech2
from asrlib.model.features import LogMel
from asrlib.model.losses import CTCLoss, LossSum, ctc_feasible
from asrlib.model.mlp import MLP

__all__ = ["MLP", "AcousticModel", "CTCLoss", "DeepSpeech2", "LogMel", "LossSum", "ctc_feasible"]
