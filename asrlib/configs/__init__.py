"""Hydra configurations of training and inference."""

import re
from collections.abc import Sequence

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig


def override(key: str, value: object) -> str:
    """``KEY=VALUE`` as the argument of a command, quoted for Hydra where a path has what it would read."""
    text = str(value)
    if not re.fullmatch(r"[\w./:-]+", text, re.ASCII):
        text = "'" + text.replace("'", r"\'") + "'"
    return f"{key}={text}"


def readable(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command as Hydra can read them: a path that it would not becomes a quoted one.

    ``data_dir=/data/speech (2)`` and a folder's name in other letters than ASCII's are no words of Hydra's.
    Lists, mappings and what is quoted already stay as they are, so that a mistake in them is told.
    """
    parser, told = OverridesParser.create(), []
    for argument in arguments:
        found = re.fullmatch(r"([+~]*\w[\w@./:-]*)=([^\[{'\"].*)", argument, re.DOTALL)
        if found:
            try:
                parser.parse_override(argument)
            except HydraException:
                argument = override(*found.groups())
        told.append(argument)
    return told


def compose(name: str, *overrides: str) -> DictConfig:
    """The configuration that a command has with these arguments, not resolved.

    Args:
        name: "train", "inference" …, as after the command's ``-cn=``.
    """
    with hydra.initialize_config_module(__name__, version_base=None):
        return hydra.compose(name, readable(overrides))
