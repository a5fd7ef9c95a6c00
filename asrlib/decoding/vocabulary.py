"""The words of a language model as a trie of their letters, for the compiled search to walk.

A letter is a byte of UTF-8. The trie is laid out level by level, so that the prefixes which extend a
prefix stand side by side, in the order of their letters.
"""

from collections.abc import Sequence

import numpy as np

from asrlib.compiled import compiled

UNKNOWN = 0  # number of all words outside the vocabulary; word i of it has number i + 1
PREFIX = np.dtype(
    [
        ("letter", np.int32),  # its last
        ("first", np.int32),  # of those that extend it; the next prefix's are the first that do not
        ("word", np.int32),  # number of the word that it is, or UNKNOWN
    ]
)


def vocabulary_trie(words: Sequence[str]) -> np.ndarray:
    """PREFIX [prefixes + 1] of sorted ``words``; first the empty one, last an end mark."""
    spelled = [word.encode() for word in words]
    starts = np.cumsum([0, *map(len, spelled)])
    return _trie(np.frombuffer(b"".join(spelled), np.uint8), starts)


@compiled
def _trie(letters, starts):
    trie = np.empty(len(letters) + 2, PREFIX)
    low, high = np.empty(len(letters) + 2, np.int32), np.empty(len(letters) + 2, np.int32)
    low[0], high[0], trie[0].letter = 0, len(starts) - 1, 0  # words [low, high) begin with it
    node, count, size, next_level = 0, 1, 0, 1
    while node < count:
        if node == next_level:
            size, next_level = size + 1, count
        trie[node].first, trie[node].word = count, UNKNOWN
        word = low[node]
        if word < high[node] and starts[word] + size == starts[word + 1]:
            word += 1
            trie[node].word = word
        while word < high[node]:
            letter = letters[starts[word] + size]
            trie[count].letter, low[count] = letter, word
            while word < high[node] and letters[starts[word] + size] == letter:
                word += 1
            high[count], count = word, count + 1
        node += 1
    trie[count].letter, trie[count].first, trie[count].word = 0, count, UNKNOWN
    return trie[: count + 1].copy()


@compiled
def best_below(trie, scores):
    """float64 [prefixes]: the best of ``scores`` [words + 1] among the words that begin with each."""
    best = np.full(len(trie) - 1, -np.inf)
    for node in range(len(best) - 1, -1, -1):
        if trie[node].word != UNKNOWN:
            best[node] = scores[trie[node].word]
        for longer in range(trie[node].first, trie[node + 1].first):
            best[node] = max(best[node], best[longer])
    return best
