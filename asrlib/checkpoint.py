"""Checkpoints: a folder that is complete or absent, and holds nothing that must be unpickled.

| file | what |
|---|---|
| ``model.safetensors`` | weights of the encoder, as they were evaluated |
| ``raw.safetensors`` | only where these are a running average: the weights that are in training |
| ``config.yaml`` | the resolved configuration of the run |
| ``text_encoder.json`` | the text encoder, as plain JSON |
| ``state.json`` | where the training stood, its results so far, and the optimiser's numbers |
| ``optimizer.safetensors`` | the optimiser's tensors (only where training may go on from here) |
| ``checksums.json`` | size and CRC-32 of each of these files |
"""

import json
import shutil
import zlib
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from asrlib import text
from asrlib.build import build_encoder, build_features
from asrlib.files import finish_what_was_killed, folder_written_atomically, remove_folder
from asrlib.model import AcousticModel


def save_checkpoint(
    path: Path,
    model: AcousticModel,
    config: DictConfig,
    text_encoder: text.CTCTextEncoder,
    state: dict,
    optimizer: torch.optim.Optimizer | None = None,
    average: dict[str, Tensor] | None = None,
) -> None:
    """Writes the folder ``path``; one that is there already is replaced.

    With ``average``, that is the encoder to recognise with; the one that training would go on from is
    kept beside it where an ``optimizer`` is.

    Raises:
        OSError: it could not be written; what was there before is as it was.
    """
    try:
        with folder_written_atomically(path) as folder:
            weights = model.encoder.state_dict()
            save_file(weights if average is None else average, folder / "model.safetensors")
            if average is not None and optimizer is not None:
                save_file(weights, folder / "raw.safetensors")
            OmegaConf.save(config, folder / "config.yaml", resolve=True)
            (folder / "text_encoder.json").write_text(json.dumps(text_encoder.to_dict()))
            if optimizer is not None:
                tensors, numbers = _split(optimizer.state_dict()["state"])
                save_file(tensors, folder / "optimizer.safetensors")
                state = state | {"optimizer": numbers}
            (folder / "state.json").write_text(json.dumps(state, indent=1))
            write_checksums(folder)
    except (OSError, SafetensorError) as error:  # safetensors has its own for a full disk
        raise OSError(f"the checkpoint {path} could not be written: {error}") from error


def write_checksums(folder: Path) -> None:
    """Of all files that are in it."""
    sums = {file.name: _checksum(file) for file in sorted(folder.iterdir())}
    (folder / "checksums.json").write_text(json.dumps(sums, indent=1))


def _checksum(path: Path, piece: int = 1 << 20) -> dict[str, int]:
    total = 0
    with path.open("rb") as file:
        while read := file.read(piece):
            total = zlib.crc32(read, total)
    return {"bytes": path.stat().st_size, "crc32": total}


def find_damage(path: Path) -> str | None:
    """What is wrong with the files of a checkpoint; None if they are as they were written.

    Files that were added later, and checkpoints from before there were checksums, are not looked at.
    """
    if not (path / "checksums.json").exists():
        return None
    try:
        for name, expected in json.loads((path / "checksums.json").read_text()).items():
            found = _checksum(path / name)
            if found != expected:
                return f"{name} has {found}, was written with {expected}"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _split(states: dict[int, dict]) -> tuple[dict, dict]:
    """An optimiser's state by parameter → its tensors and its numbers, under flat names."""
    tensors, numbers = {}, {}
    for parameter, values in states.items():
        for name, value in values.items():
            kind = tensors if torch.is_tensor(value) else numbers
            kind[f"{parameter}/{name}"] = value.contiguous() if torch.is_tensor(value) else value
    return tensors, numbers


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restores what ``save_checkpoint`` kept of an optimiser with the same parameters.

    Raises:
        ValueError: its parameters were others.
    """
    # copies: the file is mapped into memory, and may be removed or written over while training goes on
    tensors = {k: v.clone() for k, v in load_file(path / "optimizer.safetensors").items()}
    flat = tensors | read_state(path)["optimizer"]
    states: dict[int, dict] = {}
    for key, value in flat.items():
        parameter, name = key.split("/")
        states.setdefault(int(parameter), {})[name] = value
    shapes = [p.shape for group in optimizer.param_groups for p in group["params"]]
    for i, state in states.items():
        kept = {value.shape for value in state.values() if torch.is_tensor(value) and value.ndim}
        if i >= len(shapes) or kept - {shapes[i]}:
            raise ValueError(
                f"{path} was trained with other parameters: a run goes on with the trainer.freeze and "
                "the model that it began with; init_from begins another one from its weights"
            )
    optimizer.load_state_dict(
        {"state": states, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def read_state(path: Path) -> dict:
    return json.loads((path / "state.json").read_text())


def read_weights(path: Path, raw: bool = False) -> dict[str, Tensor]:
    """The encoder's tensors by name: as they were evaluated, or ``raw``, to train on."""
    if raw and (path / "raw.safetensors").exists():
        return load_file(path / "raw.safetensors")
    return load_file(path / "model.safetensors")


def read_text_encoder(path: Path) -> text.CTCTextEncoder:
    return text.from_dict(json.loads((path / "text_encoder.json").read_text()))


def find_checkpoint(path: Path | str) -> Path:
    """``path`` itself if it is a checkpoint, else the best one of the run in that folder.

    Raises:
        FileNotFoundError: neither is there; of a run that was not evaluated, the message names the newest.
    """
    for candidate in (Path(path), Path(path) / "checkpoints" / "best"):
        if (candidate / "model.safetensors").exists():
            return candidate
    if newest := find_latest(Path(path) / "checkpoints"):
        raise FileNotFoundError(
            f"{path} was not evaluated yet, so none of its checkpoints is the best: "
            f"give the newest, {newest}"
        )
    raise FileNotFoundError(
        f"no checkpoint in {Path(path).absolute()}: "
        "give the folder of a run, or one that has a model.safetensors"
    )


def load_acoustic_model(
    path: Path | str, device: str | torch.device = "cpu", raw: bool = False
) -> tuple[AcousticModel, text.CTCTextEncoder, DictConfig]:
    """The model of a checkpoint in evaluation mode, its text encoder and its configuration.

    Args:
        path: a checkpoint's folder, or a run's, of which the best checkpoint is taken.
        raw: the weights that were in training, instead of their running average.

    Raises:
        FileNotFoundError: neither is there, or it has no raw weights.
    """
    path = find_checkpoint(path)
    if raw and not (path / "raw.safetensors").exists():
        raise FileNotFoundError(
            f"{path} has no raw weights beside the evaluated ones: a run with trainer.average keeps them "
            "in checkpoints/step-…"
        )
    config = OmegaConf.load(path / "config.yaml")
    text_encoder = read_text_encoder(path)
    features = build_features(config)
    encoder = build_encoder(config, features, text_encoder)
    encoder.load_state_dict(read_weights(path, raw))
    return AcousticModel(features, encoder).to(device).eval(), text_encoder, config


def find_latest(folder: Path) -> Path | None:
    """The newest ``step-…`` checkpoint below ``folder``, if there is one."""
    return max(folder.glob("step-*"), default=None)


def find_intact(folder: Path) -> Path | None:
    """The newest ``step-…`` checkpoint below ``folder`` that is not damaged; None if there is none at all.

    Those that are damaged are renamed, and named on the terminal.

    Raises:
        OSError: all of them are damaged.
    """
    finish_what_was_killed(folder)
    while (path := find_latest(folder)) is not None:
        if (damage := find_damage(path)) is None:
            return path
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        print(f"{path} is damaged ({damage}): it is {aside.name} now; trying the one before")
    if damaged := sorted(folder.glob("damaged-step-*")):
        raise OSError(
            f"no checkpoint below {folder} is intact: choose another run_dir, or remove this one, to begin "
            f"anew; init_from={damaged[-1]} may still find weights to begin with"
        )
    return None


def keep_latest(folder: Path, keep: int) -> None:
    """Removes all ``step-…`` checkpoints but the newest ``keep``."""
    for path in sorted(folder.glob("step-*"))[:-keep]:
        remove_folder(path)
