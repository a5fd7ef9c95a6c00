"""Where a training starts from: the weights of another one, and what of them is left as it is."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from asrlib import checkpoint, text
from asrlib.build import build
from asrlib.model import AcousticModel
from asrlib.result import training_commands
from asrlib.training.state import Progress


def start_from(
    folder: Path | str,
    model: AcousticModel,
    text_encoder: text.CTCTextEncoder,
    config: DictConfig,
    tell: Callable[[str], object] = print,
) -> list[str]:
    """Gives the encoder the weights of a checkpoint, whose labels may be others.

    A listener takes the weights of an encoder that has been one without a speller, an encoder with phones
    those of one without, and makes at first of any recording what that one made. With the same labels in
    the same order all is taken over. Otherwise the tensors whose shape follows the vocabulary (the head, as
    a rule) stay as they were initialised, even where they would fit: a row that meant one label would have
    to mean another. What happened is told.

    Args:
        folder: a checkpoint, or a run, of which the best checkpoint is taken.
        config: what ``model`` was built from.

    Returns:
        names of the encoder's tensors that were not taken over.

    Raises:
        FileNotFoundError: no checkpoint is there.
        ValueError: anything else differs in name or shape; the message lists it.
    """
    path = checkpoint.find_checkpoint(folder)
    theirs, ours = checkpoint.read_weights(path), model.encoder.state_dict()
    new = set()
    if model.speller is not None and not any(name.startswith("speller.") for name in theirs):
        theirs = {f"listener.{name}": tensor for name, tensor in theirs.items()}
        new = {name for name in ours if name.startswith("speller.")}
    if from_phones := _new_phones(model.encoder, theirs):
        new |= {name for name in ours if {"phone_head", "from_phones"} & {*name.split(".")}}
    if checkpoint.read_text_encoder(path).pieces != text_encoder.pieces:
        new |= _tensors_of_labels(model, text_encoder, config)
    wrong = [
        f"  {name}: {_shape(theirs.get(name))} there, {_shape(ours.get(name))} here"
        for name in sorted((theirs.keys() | ours.keys()) - new)
        if _shape(theirs.get(name)) != _shape(ours.get(name))
    ]
    if wrong:
        raise ValueError(f"init_from: {path} holds another model:\n" + "\n".join(wrong))
    model.encoder.load_state_dict(
        {name: tensor for name, tensor in theirs.items() if name not in new}, strict=False
    )
    if from_phones:
        for parameter in from_phones.parameters():
            nn.init.zeros_(parameter)
    kept = sorted(new & ours.keys())
    tell(f"starting from {path}: {len(ours) - len(kept)} of {len(ours)} tensors")
    if kept:
        shapes = ", ".join(f"{name} {_shape(ours[name])}" for name in kept)
        tell(f"initialised anew, since it was not there or its labels are others: {shapes}")
    return kept


def _new_phones(encoder: nn.Module, theirs: Mapping[str, Tensor]) -> nn.Module | None:
    """What gives phones to the blocks of ``encoder``, or its listener, if ``theirs`` have none."""
    encoder = getattr(encoder, "listener", encoder)
    known = any("from_phones." in name for name in theirs)
    return None if known else getattr(encoder, "from_phones", None)


def count_earlier_stages(folder: Path | str, progress: Progress) -> None:
    """What the checkpoint ``folder`` was made by, and its cost, belong to what is made from it."""
    path = checkpoint.find_checkpoint(folder)
    state, config = checkpoint.read_state(path), OmegaConf.load(path / "config.yaml")
    progress.earlier = training_commands(state, config.trainer.accumulate)
    progress.audio_seconds = state["audio_seconds"]
    progress.train_seconds = state["train_seconds"]
    progress.devices = state.get("devices", [])


def _tensors_of_labels(
    model: AcousticModel, text_encoder: text.CTCTextEncoder, config: DictConfig
) -> set[str]:
    """Names of the tensors that have another shape in an encoder of one label more."""
    larger = build(
        config.model, n_mels=model.features.n_mels, vocabulary_size=len(text_encoder) + 1
    ).state_dict()
    ours = model.encoder.state_dict()
    return {name for name in ours if ours[name].shape != larger[name].shape}


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else str(list(tensor.shape))


def freeze(encoder: nn.Module, names: Sequence[str]) -> None:
    """Excludes the parameters below ``names`` from training, before an optimiser is built.

    Modules with statistics below them are put into evaluation mode, so that these stay as they are;
    ``encoder.train()`` undoes that, and this does it again.

    Args:
        names: of modules or single parameters, as in a checkpoint: "convolutions", "head.bias".

    Raises:
        ValueError: a name that the encoder does not have, or nothing is left to be trained.
    """
    found = set()
    for name, parameter in encoder.named_parameters():
        for frozen in _matching(name, names):
            parameter.requires_grad_(False)
            found.add(frozen)
    if unknown := [name for name in names if name not in found]:
        children = [name for name, _ in encoder.named_children()]
        raise ValueError(f"trainer.freeze: no parameters below {unknown}; there are {children}")
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        raise ValueError(f"trainer.freeze={list(names)} leaves nothing to train")
    for name, module in encoder.named_modules():
        if _matching(name, names) and next(module.buffers(recurse=False), None) is not None:
            module.training = False


def _matching(name: str, prefixes: Sequence[str]) -> list[str]:
    """Those of ``prefixes`` that are ``name`` or above it: "layers.1" is not above "layers.10"."""
    return [prefix for prefix in prefixes if f"{name}.".startswith(f"{prefix}.")]
