"""Text: one normaliser, and encoders between text and label ids."""

from collections.abc import Iterable
from typing import Any

from asrlib.options import unknown_named
from asrlib.text.bpe import BPETextEncoder
from asrlib.text.char import BLANK, CTCTextEncoder, collapse
from asrlib.text.normalize import ALPHABET, normalize, unspoken

__all__ = [
    "ALPHABET",
    "BLANK",
    "BPETextEncoder",
    "CTCTextEncoder",
    "collapse",
    "from_dict",
    "learn",
    "normalize",
    "unspoken",
]

_KINDS = {encoder.kind: encoder for encoder in (CTCTextEncoder, BPETextEncoder)}


def learn(texts: Iterable[str], kind: str, **options: Any) -> CTCTextEncoder:
    """A text encoder of ``kind``, learned from normalised ``texts``; options as its ``train`` has.

    Raises:
        ValueError: a kind that this version does not know, or an option that it does not have; or what
            ``train`` raises.
    """
    with unknown_named("text_encoder"):
        return _class_of(kind).train(texts, **options)


def from_dict(state: dict) -> CTCTextEncoder:
    """The text encoder that ``to_dict`` wrote.

    Raises:
        ValueError: an encoder of a kind that this version does not know.
    """
    return _class_of(state.get("kind")).from_dict(state)


def _class_of(kind: str | None) -> type[CTCTextEncoder]:
    if kind not in _KINDS:
        raise ValueError(f"text encoder of kind {kind!r}; this version knows {sorted(_KINDS)}")
    return _KINDS[kind]
