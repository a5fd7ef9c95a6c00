"""The words of a language model by how they sound: a trie of their phones for the compiled search.

python -m asrlib.decoding.pronunciations LM OUT.tsv.gz    # a lexicon of all words of LM, by espeak-ng
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asrlib.decoding.ngram import open_model
from asrlib.decoding.vocabulary import best_below, vocabulary_trie
from asrlib.text.lexicon import read_lexicon, write_lexicon
from asrlib.text.phones import Pronouncer


class Pronunciations(NamedTuple):
    """Words that sound alike stand together, as a group."""

    trie: np.ndarray  # PREFIX, of phones for letters; its words are groups, from 1 on
    starts: np.ndarray  # int64 [groups + 2]: where each group's words begin; group 0 is empty
    words: np.ndarray  # int64 [words]: their numbers in the language model
    ahead: np.ndarray  # float64 [prefixes]: best ln p(word) without a history below each prefix
    alone: np.ndarray  # float64 [words]: ln p of each of ``words`` without a history


def pronunciations(
    names: Sequence[str], alone: np.ndarray, lexicon: Mapping[str, list[list[int]]]
) -> Pronunciations:
    """The words that have phones; the others are left out.

    Args:
        names: of all words, as the language model numbers them; 0 is the unknown one.
        alone: float64 [words], ln p of each without a history.
        lexicon: phone ids of each pronunciation of each word.

    Raises:
        ValueError: no word has any.
    """
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(names[1:], start=1):
        for phones in lexicon.get(name, ()):
            # a phone's id stands for a letter: all are below 128, so a byte of UTF-8 each
            group = groups.setdefault("".join(map(chr, phones)), [])
            if number not in group:
                group.append(number)
    if not groups:
        raise ValueError("the lexicon has none of the language model's words")
    said = sorted(groups)
    trie = vocabulary_trie(said)
    words = np.array(list(chain.from_iterable(groups[s] for s in said)), np.int64)
    starts = np.cumsum([0, 0, *(len(groups[s]) for s in said)])
    best = np.array([-np.inf, *(alone[groups[s]].max() for s in said)])
    return Pronunciations(trie, starts, words, best_below(trie, best), alone[words])


def lexicon_of(words: Sequence[str], path: Path | str | None = None) -> dict[str, list[list[int]]]:
    """How ``words`` sound: what the file ``path`` says, else espeak-ng.

    Raises:
        FileNotFoundError, ValueError: as ``read_lexicon``; ImportError: no ``path``, and no espeak-ng.
    """
    if path is not None:
        return read_lexicon(path)
    return {
        word: [phones]
        for word, phones in zip(words, Pronouncer().words(words), strict=True)
        if phones
    }


def write_lexicon_of(lm_path: Path | str, out: Path | str) -> int:
    """Writes how all words of a language model sound, by espeak-ng; returns how many they are.

    Raises:
        as ``open_model`` and ``Pronouncer``.
    """
    _, words = open_model(lm_path)
    write_lexicon(out, dict(zip(words, Pronouncer().words(words), strict=True)))
    return len(words)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(f"{sys.argv[2]}: {write_lexicon_of(*sys.argv[1:])} words")
