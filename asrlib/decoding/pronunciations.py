"""The words of a language model by how they sound: a trie of their phones for the compiled search."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from asrlib.decoding.vocabulary import best_below, vocabulary_trie
from asrlib.text.phones import Pronouncer


class Pronunciations(NamedTuple):
    """Words that sound alike stand together, as a group."""

    trie: np.ndarray  # PREFIX, of phones for letters; its words are groups, from 1 on
    starts: np.ndarray  # int64 [groups + 2]: where each group's words begin; group 0 is empty
    words: np.ndarray  # int64 [words]: their numbers in the language model
    ahead: np.ndarray  # float64 [prefixes]: best ln p(word) without a history below each prefix


def pronunciations(names: Sequence[str], alone: np.ndarray) -> Pronunciations:
    """The words that have phones; the others (marks) are left out.

    Args:
        names: of all words, as the language model numbers them; 0 is the unknown one.
        alone: float64 [words], ln p of each without a history.

    Raises:
        ImportError, RuntimeError, ValueError: as ``Pronouncer``.
    """
    groups: dict[str, list[int]] = {}
    # a phone's id stands for a letter: all are below 128, so a byte of UTF-8 each
    for number, phones in enumerate(Pronouncer().words(names[1:]), start=1):
        if phones:
            groups.setdefault("".join(map(chr, phones)), []).append(number)
    said = sorted(groups)
    trie = vocabulary_trie(said)
    words = np.array(list(chain.from_iterable(groups[s] for s in said)), np.int64)
    starts = np.cumsum([0, 0, *(len(groups[s]) for s in said)])
    best = np.array([-np.inf, *(alone[groups[s]].max() for s in said)])
    return Pronunciations(trie, starts, words, best_below(trie, best))
