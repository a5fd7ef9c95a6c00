"""Byte-pair encoding: pieces of words as CTC labels, learned from the training transcripts.

Design choices:

* youtokentome learns the merges and is imported for nothing else. Encoding, decoding and loading
  are ours, and what they need is plain JSON: the pieces in the order of their ids, and the merges.
* Labels have youtokentome's own ids, without an offset. Its padding, id 0, is our blank; its unknown
  token is given the id after the last piece, where it is no label; it has no BOS and no EOS.
* As in youtokentome, a word begins with ``▁`` (U+2581) and no piece reaches beyond a word. ``▁``
  takes the place of the space: the first ids are those of a character encoder over ``alphabet``.
* Every character of the normaliser's alphabet has a label, also one that the transcripts lack.
* youtokentome is not deterministic: pairs of equal count go in an order that depends on how its
  threads interleave (in 4 of 100 trials two ids were swapped). So a run keeps what it learned.
"""

import tempfile
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from asrlib.text.char import BLANK, CTCTextEncoder
from asrlib.text.normalize import ALPHABET

WORD_START = "▁"


class BPETextEncoder(CTCTextEncoder):
    """Maps normalised text to ids of pieces of words and back; id 0 is CTC's blank.

    Args:
        alphabet: the characters in the order of their ids, which start at 1; the space is ``▁``.
        merges: pairs of ids, in the order in which they were learned; each makes the next id.
        dropout: probability that a possible merge is not made, where ``encode`` is given a generator
            (BPE-dropout: Provilkov et al., "BPE-Dropout", ACL 2020; they use 0.1).

    Raises:
        ValueError: two labels with the same text, or a dropout that is no probability.
    """

    kind = "bpe"

    def __init__(self, alphabet: str, merges: Sequence[Sequence[int]], dropout: float = 0.0):
        super().__init__(alphabet)
        if not 0.0 <= dropout <= 1.0:
            raise ValueError(f"BPE: dropout={dropout} is no probability")
        self.pieces = [piece.replace(" ", WORD_START) for piece in self.pieces]
        self._merged_id = {}  # in the order of the merges, so that the smallest id goes first
        for left, right in merges:
            self._merged_id[left, right] = len(self.pieces)
            self.pieces.append(self.pieces[left] + self.pieces[right])
        if len(set(self.pieces)) != len(self.pieces):
            raise ValueError("BPE: two labels have the same text")
        self.dropout = dropout
        self._ids_of_word: dict[str, list[int]] = {}

    @classmethod
    def train(
        cls, texts: Iterable[str], vocabulary_size: int, dropout: float = 0.0
    ) -> "BPETextEncoder":
        """Learns ``vocabulary_size`` labels V, the blank included, from normalised ``texts``.

        Raises:
            ImportError: youtokentome is not installed.
            ValueError: the texts do not give so many labels, or the size leaves no place for the
                characters, or the texts are not normalised.
        """
        smallest = len(ALPHABET) + 1
        if vocabulary_size < smallest:
            raise ValueError(
                f"BPE: vocabulary_size={vocabulary_size} is less than {smallest}, "
                "the blank and every character"
            )
        alphabet, merges = _learn(_with_whole_alphabet(texts), vocabulary_size)
        encoder = cls(alphabet, merges, dropout)
        if len(encoder) < vocabulary_size:
            raise ValueError(
                f"BPE: the training transcripts give {len(encoder)} labels at most, "
                f"not vocabulary_size={vocabulary_size}"
            )
        return encoder

    @property
    def options(self) -> dict:
        return {"kind": self.kind, "vocabulary_size": len(self), "dropout": self.dropout}

    @property
    def word_starts(self) -> set[int]:
        return {i for i, piece in enumerate(self.pieces) if piece.startswith(WORD_START)}

    def encode(self, text: str, rng: np.random.Generator | None = None) -> list[int]:
        """Label ids [U] of the words of normalised ``text``; with ``rng``, ``dropout`` applies.

        Raises:
            ValueError: a character outside the alphabet (pass the text through ``normalize`` first).
        """
        if rng is not None and self.dropout:
            return [i for word in text.split() for i in self._encode_word(word, rng)]
        for word in text.split():
            if word not in self._ids_of_word:
                self._ids_of_word[word] = self._encode_word(word)
        return [i for word in text.split() for i in self._ids_of_word[word]]

    def _encode_word(self, word: str, rng: np.random.Generator | None = None) -> list[int]:
        """Makes the merge learned first, the leftmost of several, as long as there is one to make.

        With ``rng`` each place of each merge may be left out, anew at every step.
        """
        ids = super().encode(f" {word}")
        while True:
            merges = [
                (self._merged_id[pair], place)
                for place, pair in enumerate(pairwise(ids))
                if pair in self._merged_id
            ]
            if rng is not None:
                kept = rng.random(len(merges)) >= self.dropout
                merges = [merge for merge, keep in zip(merges, kept, strict=True) if keep]
            if not merges:
                return ids
            merged, place = min(merges)
            ids[place : place + 2] = [merged]

    def decode(self, ids: Iterable[int]) -> str:
        """Words of label ids between single spaces; blanks write nothing, repeats are kept."""
        return " ".join(super().decode(ids).replace(WORD_START, " ").split())

    def to_dict(self) -> dict:
        """Plain JSON that ``asrlib.text.from_dict`` reads back."""
        merges = [list(pair) for pair in self._merged_id]
        return {
            "kind": self.kind,
            "pieces": self.pieces,
            "merges": merges,
            "dropout": self.dropout,
        }

    @classmethod
    def from_dict(cls, state: dict) -> "BPETextEncoder":
        """
        Raises:
            ValueError: the pieces are not what the merges make.
        """
        pieces, merges = state["pieces"], state["merges"]
        characters = pieces[BLANK + 1 : len(pieces) - len(merges)]
        alphabet = "".join(characters).replace(WORD_START, " ")
        encoder = cls(alphabet, merges, state["dropout"])
        if encoder.pieces != pieces:
            raise ValueError("BPE: pieces and merges contradict each other")
        return encoder


def _with_whole_alphabet(texts: Iterable[str]) -> str:
    """``texts`` by lines, and characters that none of them has as words of one letter at the end.

    Counted once each, they hardly ever are in a merge.
    """
    text = "\n".join(texts)
    if unknown := set(text) - set(ALPHABET) - {"\n"}:
        raise ValueError(
            f"BPE: {''.join(sorted(unknown))!r} in the training texts: normalise them first "
            "(asrlib.text.normalize)"
        )
    return "\n".join([text, *sorted(set(ALPHABET) - set(text) - {" "})])


def _learn(text: str, vocabulary_size: int) -> tuple[str, list[tuple[int, int]]]:
    """Alphabet and merges that youtokentome learns: fewer where ``text`` has no more pairs."""
    try:
        import youtokentome
    except ImportError as error:
        raise ImportError(
            "learning a BPE vocabulary needs youtokentome: "
            "pip install --no-deps --no-build-isolation -r requirements-nodeps.txt"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        data, model = Path(folder, "text"), Path(folder, "model")
        data.write_text(text, encoding="utf-8")
        youtokentome.BPE.train(
            data=str(data),
            model=str(model),
            vocab_size=vocabulary_size + 1,  # its unknown token is none of our labels
            n_threads=1,  # more would add to the chance in the order of pairs of equal count
            pad_id=BLANK,
            unk_id=vocabulary_size,
            bos_id=-1,
            eos_id=-1,
        )
        return _read_model(model.read_text())


def _read_model(content: str) -> tuple[str, list[tuple[int, int]]]:
    """Alphabet and merges of youtokentome's model file (``BPEState::dump`` in its ``utils.cpp``).

    Lines of integers: the numbers of characters and merges; code point and id of each character, in
    no order; left, right and merged id of each merge; the special tokens' ids.
    """
    rows = [[int(number) for number in line.split()] for line in content.splitlines()]
    (characters, merges), *rows = rows
    by_id = sorted((i, chr(code)) for code, i in rows[:characters])
    alphabet = "".join(character for _, character in by_id).replace(WORD_START, " ")
    return alphabet, [(left, right) for left, right, _ in rows[characters : characters + merges]]
