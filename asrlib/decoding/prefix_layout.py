"""What the compiled search works on, and what it is given and gives back."""

from typing import NamedTuple

import numpy as np

NODE = np.dtype(
    [
        ("parent", np.int32),
        ("token", np.int32),
        ("child", np.int32),  # the youngest; the others follow by sibling
        ("sibling", np.int32),
        ("beam", np.int32),  # index in the beam
        ("spelled", np.int32),  # the word being written, in the vocabulary's trie; EMPTY: not there
        ("state", np.int32),  # of the language model, before this word
        ("after", np.int32),  # and after it, should it end here
        ("lm", np.float64),  # score of the finished words
        ("close", np.float64),  # score of the word, should it end here; NaN: not known yet
        ("sure", np.float64),  # of that, what does not depend on the language model
        ("ahead", np.float64),  # guess of it, for as long as the word is not at its end
    ],
    align=True,
)
BEAM = np.dtype(
    [
        ("node", np.int32),
        ("fresh", np.bool_),  # best_label emits its last token in this very frame
        ("blank_emission", np.int32),  # of the last token on the best path that ends in a blank
        ("label_emission", np.int32),  # in its last label; if fresh, of the token before
        ("blank", np.float64),  # ln p of all paths that end in a blank
        ("label", np.float64),  # in the last label
        ("both", np.float64),
        ("best_blank", np.float64),  # ln p of the best one
        ("best_label", np.float64),
        ("total", np.float64),  # both, with the language model's score and the look-ahead
    ],
    align=True,
)
EMISSION = np.dtype([("previous", np.int32), ("frame", np.int32)])
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
