"""Hydra configurations of training and inference."""

import hydra
from omegaconf import DictConfig


def compose(name: str, *overrides: str) -> DictConfig:
    """The configuration that a command has with these arguments, not resolved.

    Args:
        name: "train", "inference" …, as after the command's ``-cn=``.
    """
    with hydra.initialize_config_module(__name__, version_base=None):
        return hydra.compose(name, list(overrides))
