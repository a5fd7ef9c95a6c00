"""What the compiled search is given and gives back."""

from typing import NamedTuple

import numpy as np

ANSWER = np.dtype(
    [
        ("key", np.int64),  # state · 2^32 + word
        ("score", np.float64),  # ln p(word | state)
        ("state", np.int32),  # after the word; EMPTY: not answered yet
    ],
    align=True,
)


class Rules(NamedTuple):
    """What holds for every utterance; scores are natural logarithms."""

    ends_word: np.ndarray  # bool [V]: the label ends the word before it
    letters: np.ndarray  # uint8: the bytes that the labels add to a word
    starts: np.ndarray  # int64 [V + 1]: where each label's begin
    vocabulary: np.ndarray  # PREFIX: the trie of the language model's words
    ahead: np.ndarray  # float64 [prefixes + 1]: NGram's
    width: int
    skip_above: float
    token_min: float
    prune: float
    alpha: float
    beta: float
    unknown: float  # added for a word outside the vocabulary


class Table(NamedTuple):
    """What the language model has said, as an open-addressed hash table."""

    answers: np.ndarray  # ANSWER [power of two]; the key is EMPTY where free
    ends: np.ndarray  # float64 [states]: ln p(</s> | state)


class Found(NamedTuple):
    """The best hypotheses of an utterance."""

    scores: np.ndarray  # float64 [n]
    sizes: np.ndarray  # int64 [n]: U; EMPTY if there are fewer than n
    paths: np.ndarray  # int64 [n, 2, T']: labels, and the frames where the best path emits them
