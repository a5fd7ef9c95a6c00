"""Acoustic models: features and lengths in, ``log_probs`` and lengths out."""

from asrlib.model.acoustic import AcousticModel
from asrlib.model.conformer import Conformer
from asrlib.model.deepspeech2 import DeepSpeech2
from asrlib.model.features import LogMel
from asrlib.model.jasper import Jasper, QuartzNet
from asrlib.model.joint_loss import JointLoss
from asrlib.model.las import LAS
from asrlib.model.losses import CTCLoss, LossSum, ctc_feasible
from asrlib.model.mlp import MLP
from asrlib.model.pyramid import PyramidalLSTM

__all__ = [
    "LAS",
    "MLP",
    "AcousticModel",
    "CTCLoss",
    "Conformer",
    "DeepSpeech2",
    "Jasper",
    "JointLoss",
    "LogMel",
    "LossSum",
    "PyramidalLSTM",
    "QuartzNet",
    "ctc_feasible",
]
