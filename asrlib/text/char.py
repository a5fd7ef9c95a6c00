"""Characters as CTC labels: the simplest text encoder, and the best one when data is small."""

from collections.abc import Iterable, Sequence

import numpy as np

from asrlib.text.normalize import ALPHABET

BLANK = 0


class CTCTextEncoder:
    """Maps normalised text to label ids and back; id 0 is CTC's blank.

    Args:
        alphabet: the characters in the order of their ids, which start at 1.

    ``pieces`` is the text of each label in the order of the ids, the blank's empty.
    """

    kind = "char"

    def __init__(self, alphabet: str = ALPHABET):
        if len(set(alphabet)) != len(alphabet):
            raise ValueError(f"alphabet {alphabet!r} holds a character twice")
        self.alphabet = alphabet
        self.pieces = ["", *alphabet]
        self._id_of = {character: i for i, character in enumerate(alphabet, start=BLANK + 1)}

    @classmethod
    def train(cls, texts: Iterable[str]) -> "CTCTextEncoder":
        """The encoder for the normaliser's alphabet: ``texts`` have nothing to teach it."""
        return cls()

    @property
    def options(self) -> dict:
        """The section ``text_encoder`` of the configuration that such an encoder comes from."""
        return {"kind": self.kind}

    @property
    def separators(self) -> set[int]:
        """Labels that stand between words and write nothing else."""
        return {self._id_of[c] for c in " " if c in self._id_of}

    @property
    def word_starts(self) -> set[int]:
        """Labels that begin a word by what they write: among characters there are none."""
        return set()

    def __len__(self) -> int:
        """Number of labels V, the blank included."""
        return len(self.pieces)

    def encode(self, text: str, rng: np.random.Generator | None = None) -> list[int]:
        """Label ids [U] of normalised ``text``, which characters spell in one way: no use of ``rng``.

        Raises:
            ValueError: a character outside the alphabet (pass the text through ``normalize`` first).
        """
        try:
            return [self._id_of[character] for character in text]
        except KeyError:
            unknown = sorted(set(text) - set(self.alphabet))
            raise ValueError(
                f"{''.join(unknown)!r} not in the alphabet {self.alphabet!r}, in the text {text!r}: "
                "normalise the text first (asrlib.text.normalize)"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Text of label ids; blanks write nothing, repeats are kept."""
        return "".join(self.pieces[i] for i in ids)

    def ctc_decode(self, frame_ids: Sequence[int]) -> str:
        """Text of one label per frame: repeats merged, then blanks removed (Graves et al. 2006)."""
        return self.decode(collapse(frame_ids)[0])

    def to_dict(self) -> dict:
        """Plain JSON that ``asrlib.text.from_dict`` reads back."""
        return {"kind": self.kind, "alphabet": self.alphabet}

    @classmethod
    def from_dict(cls, state: dict) -> "CTCTextEncoder":
        return cls(state["alphabet"])


def collapse(frame_ids: Sequence[int]) -> tuple[list[int], list[int]]:
    """CTC's many-to-one map B: merges repeats, removes blanks.

    Returns:
        the label ids and, for each, the frame where its run starts.
    """
    ids, frames, previous = [], [], BLANK
    for frame, label in enumerate(frame_ids):
        if label != previous and label != BLANK:
            ids.append(int(label))
            frames.append(frame)
        previous = label
    return ids, frames
