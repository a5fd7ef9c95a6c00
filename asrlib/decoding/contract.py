"""How a decoder is called: with that of a model's output which it reads.

Decoders of CTC read ``log_probs`` and ``log_probs_length``; one that reads more says so in an attribute
``reads``, names in the order of its arguments.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from asrlib.decoding.greedy import Hypothesis

LENGTH = "log_probs_length"

Decoder = Callable[..., list[Hypothesis]]


def reads(decoder: object) -> tuple[str, ...]:
    """What ``decoder``, or a class of them, reads of a model's output."""
    return getattr(decoder, "reads", ("log_probs", LENGTH))


def decode(decoder: Decoder, output: Mapping[str, Tensor]) -> list[Hypothesis]:
    """The hypotheses of a batch from a model's output, with one space between words and none outside.

    Characters may spell others: between words, so that no word is changed.

    Raises:
        ValueError: as ``decoder``; or it reads what the model does not make.
    """
    found = decoder(*read(output, reads(decoder)))
    return [replace(hypothesis, text=" ".join(hypothesis.text.split())) for hypothesis in found]


def read(output: Mapping[str, Tensor], names: Iterable[str]) -> list[Tensor]:
    """What ``output`` has under ``names``.

    Raises:
        ValueError: the model does not make it.
    """
    if missing := [name for name in names if name not in output]:
        raise ValueError(
            f"this decoder reads {', '.join(missing)}, which the model does not make: phones come of "
            "loss=phones model.phone_layer=NUMBER in training; decoder=beam_lm needs none"
        )
    return [output[name] for name in names]


def decode_one(decoder: Decoder, frames: Mapping[str, Tensor]) -> Hypothesis:
    """The hypothesis of one utterance, or a part of it, from its tensors [T', ...]."""
    output = {name: tensor.unsqueeze(0) for name, tensor in frames.items()}
    output[LENGTH] = frames["log_probs"].new_tensor([len(frames["log_probs"])]).long().cpu()
    return decode(decoder, output)[0]
