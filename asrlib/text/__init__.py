"""Text: one normaliser, and encoders between text and label ids."""

from asrlib.text.char import BLANK, CTCTextEncoder, collapse
from asrlib.text.normalize import ALPHABET, normalize, unspoken

__all__ = ["ALPHABET", "BLANK", "CTCTextEncoder", "collapse", "from_dict", "normalize", "unspoken"]

_KINDS = {encoder.kind: encoder for encoder in (CTCTextEncoder,)}


def from_dict(state: dict) -> CTCTextEncoder:
    """The text encoder that ``to_dict`` wrote.

    Raises:
        ValueError: an encoder of a kind that this version does not know.
    """
    kind = state.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"text encoder of kind {kind!r}; this version knows {sorted(_KINDS)}")
    return _KINDS[kind].from_dict(state)
