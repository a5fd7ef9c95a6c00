"""Hydra configurations of training and inference."""

import re

import hydra
from omegaconf import DictConfig


def override(key: str, value: object) -> str:
    """``KEY=VALUE`` as the argument of a command, quoted for Hydra where a path has what it would read."""
    text = str(value)
    if not re.fullmatch(r"[\w./:-]+", text, re.ASCII):
        text = "'" + text.replace("'", r"\'") + "'"
    return f"{key}={text}"


def compose(name: str, *overrides: str) -> DictConfig:
    """The configuration that a command has with these arguments, not resolved.

    Args:
        name: "train", "inference" …, as after the command's ``-cn=``.
    """
    with hydra.initialize_config_module(__name__, version_base=None):
        return hydra.compose(name, list(overrides))
