"""From configuration to objects.

A section of the configuration names its class under ``_target_`` (Hydra's ``instantiate``). Since a
checkpoint brings its own configuration, only targets inside asrlib are followed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import hydra
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from asrlib.decoding.contract import Decoder, reads
from asrlib.model import LogMel
from asrlib.options import unknown_named
from asrlib.text import CTCTextEncoder


def build(section: Mapping, **arguments: Any) -> Any:
    """The object that ``section`` describes.

    Raises:
        ValueError: its ``_target_``, or one inside it, is missing or outside asrlib, or has no such option.
        as the class does, whose errors come without Hydra's around them.
    """
    if "_target_" not in section:
        raise ValueError(f"no _target_ in {section}")
    _refuse_foreign_targets(section)
    with unknown_named():
        try:
            return hydra.utils.instantiate(section, _convert_="all", **arguments)
        except InstantiationException as error:
            raise (error.__cause__ or error) from None


def _refuse_foreign_targets(section: Any) -> None:
    if isinstance(section, Mapping):
        target = section.get("_target_", "asrlib.")
        if not str(target).startswith("asrlib."):
            raise ValueError(f"_target_ {target!r} is not part of asrlib")
        for value in section.values():
            _refuse_foreign_targets(value)
    elif isinstance(section, Sequence) and not isinstance(section, str):
        for value in section:
            _refuse_foreign_targets(value)


def texts_in(section: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, value) of every text in a configuration; those in a list have the list's key."""
    if isinstance(section, str):
        yield key, section
    elif isinstance(section, Mapping):
        for name, value in section.items():
            yield from texts_in(value, f"{key}.{name}" if key else str(name))
    elif isinstance(section, Iterable):
        for value in section:
            yield from texts_in(value, key)


def build_features(config: DictConfig) -> LogMel:
    return build(config.features)


def build_encoder(config: DictConfig, features: LogMel, text_encoder: CTCTextEncoder) -> nn.Module:
    """The encoder of ``config.model`` for these features and labels.

    Raises:
        ValueError: as ``build``; or too few encoder frames for characters.
    """
    encoder = build(config.model, n_mels=features.n_mels, vocabulary_size=len(text_encoder))
    without_ctc = OmegaConf.select(config, "loss.attention", default=0) == 1
    if text_encoder.kind == CTCTextEncoder.kind and encoder.stride >= 8 and not without_ctc:
        raise ValueError(
            f"an encoder frame of {10 * encoder.stride} ms is longer than many characters are: "
            "choose text_encoder=bpe, or a smaller stride (model.subsampling=4, model.halvings=2)"
        )
    return encoder


def build_decoder(
    section: Mapping, text_encoder: CTCTextEncoder, speller: nn.Module | None = None
) -> Decoder:
    """The decoder of a section of ``decoder/``, whose ``name`` is for result rows.

    Args:
        speller: of the model whose output will be decoded, if it has one.

    Raises:
        ValueError: as ``build``; or the decoder needs a speller.
    """
    make = _make_decoder(section)
    if "encoded" not in reads_of(section):
        return make(text_encoder=text_encoder)
    if speller is None:
        raise ValueError(
            f"decoder={section.get('name')} decodes by attention, and this model has CTC alone: choose "
            "decoder=greedy or beam, or train with model=las loss=joint"
        )
    return make(text_encoder=text_encoder, speller=speller)


def reads_of(section: Mapping) -> tuple[str, ...]:
    """What the decoder of a section of ``decoder/`` reads of a model's output; it is not made."""
    return reads(_make_decoder(section).func)


def _make_decoder(section: Mapping) -> partial:
    return build({k: v for k, v in section.items() if k != "name"}, _partial_=True)


def choose_device(name: str) -> torch.device:
    """``name`` as a device; "auto" is CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What a row calls it: "cpu", or a GPU's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def build_named(section: DictConfig | None) -> dict[str, Any]:
    """{name: object} of a section whose entries each have a ``_target_``; null entries are left out.

    Raises:
        ValueError: as ``build``; or an entry has options alone.
    """
    entries = {name: entry for name, entry in (section or {}).items() if entry is not None}
    for name, entry in entries.items():
        if "_target_" not in entry:
            raise ValueError(
                f"{name} has options ({', '.join(entry)}) and no _target_: the experiment changes what this "
                f"choice does not have. Leave it out with {name}=null below its section"
            )
    return {name: build(entry) for name, entry in entries.items()}
