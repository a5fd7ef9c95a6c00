"""The mean of the weights of several runs: python -m asrlib.soup OUT RUN RUN [RUN…]

    python -m asrlib.soup outputs/mean outputs/augmented outputs/augmented-then-plain

Runs that went on from the same weights lie in one basin of the loss, and their mean often generalises
better than each (Wortsman et al., "Model soups", ICML 2022). OUT is a run with its best checkpoint, to
recognise with (``inferencer.from_pretrained=OUT``) or to go on from (``init_from=OUT``); its other files are
of the last RUN.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from asrlib.checkpoint import (
    find_checkpoint,
    load_acoustic_model,
    read_state,
    read_text_encoder,
    read_weights,
    save_checkpoint,
)
from asrlib.result import command_line, training_commands

# Sections of the configuration that must be the same, but for the options in training.
MADE_BY = ("model", "features")
IN_TRAINING = ("dropout", "stochastic_depth", "sampling", "intermediate_layers")


def soup(out: Path | str, *runs: Path | str) -> Path:
    """Writes ``out/checkpoints/best``, the mean of the best checkpoints of ``runs``, and returns it.

    Hours and audio are those of all runs; where two share their first stages, these count for both.

    Raises:
        FileNotFoundError: a run has no checkpoint.
        FileExistsError: ``out`` is there already.
        ValueError: fewer than two runs, or their models or labels differ.
    """
    out, paths = Path(out), [find_checkpoint(run) for run in runs]
    if len(paths) < 2:
        raise ValueError("a mean of one run is that run: name two or more")
    if out.exists():
        raise FileExistsError(f"{out} is there already: choose another folder")
    configs = [OmegaConf.load(path / "config.yaml") for path in paths]
    last = paths[-1]
    for path, config in zip(paths, configs, strict=True):
        for section in MADE_BY:
            if _shape(config[section]) != _shape(configs[-1][section]):
                raise ValueError(f"{path} and {last} differ in their {section}: they have no mean")
        if read_text_encoder(path).pieces != read_text_encoder(last).pieces:
            raise ValueError(f"{path} and {last} have other labels: they have no mean")
    config = configs[-1]
    config.name, config.run_dir = out.name, str(out)
    model, text_encoder, _ = load_acoustic_model(last)
    mean = _mean([read_weights(path) for path in paths])
    states = [read_state(path) for path in paths]
    save_checkpoint(
        out / "checkpoints" / "best",
        model,
        config,
        text_encoder,
        _together(states, [c.trainer.accumulate for c in configs]),
        average=mean,
    )
    return out / "checkpoints" / "best"


def _shape(section: Any) -> Any:
    """Without what holds in training alone."""
    if not isinstance(section, Mapping):
        return section
    return {k: _shape(v) for k, v in section.items() if k not in IN_TRAINING}


def _mean(weights: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Computed in float64; what is no number with a fraction is the last one's."""
    return {
        name: torch.stack([w[name].double() for w in weights]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in weights[-1].items()
    }


def _together(states: list[dict], accumulate: list[int]) -> dict:
    """The state of a run that all of these were stages of."""
    chains = [
        training_commands(state, batches) for state, batches in zip(states, accumulate, strict=True)
    ]
    whole = [  # those that no other run went on from
        state
        for state, chain in zip(states, chains, strict=True)
        if not any(len(other) > len(chain) and other[: len(chain)] == chain for other in chains)
    ]
    facts = {k: v for k, v in states[-1].get("facts", {}).items() if k != "trainer.accumulate"}
    return states[-1] | {
        "earlier": list(dict.fromkeys(command for chain in chains for command in chain)),
        "command": command_line(),
        "facts": facts,
        "audio_seconds": sum(state["audio_seconds"] for state in whole),
        "train_seconds": sum(state["train_seconds"] for state in whole),
        "devices": list(dict.fromkeys(d for state in states for d in state.get("devices", []))),
    }


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        print(soup(*sys.argv[1:]))
    except (OSError, ValueError) as error:
        sys.exit(f"soup: {error}")
