"""Word n-gram language models of KenLM, behind numbers that the compiled search can look up.

KenLM answers Python only. Its answers go into a hash table, where the search finds them; words and
language model states are numbers there. Histories that the model cannot tell apart are one state.
"""

import gzip
import shutil
import tempfile
from collections.abc import Callable, Iterator
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from asrlib.decoding.prefix_layout import ANSWER, Table
from asrlib.decoding.prefix_search import EMPTY, insert
from asrlib.decoding.vocabulary import UNKNOWN, best_below, vocabulary_trie
from asrlib.language_model import prepared
from asrlib.language_model.arpa import open_arpa
from asrlib.language_model.binary import is_binary, words_of

LN_10 = log(10)  # KenLM's logarithms are decimal
FORGET_AT = 2**18  # answers kept from one utterance to the next: some 50 MB
MARKS = {b"<unk>", b"<UNK>", b"<s>", b"</s>"}


def new_table(answers: int) -> Table:
    """An empty table with room for so many ``answers``, which fill half of it at most."""
    size = 2 ** (2 * answers).bit_length()
    places = np.empty(size, ANSWER)
    places["key"] = EMPTY
    return Table(places, np.zeros(size // 2 + 1))


class NGram:
    """A language model file.

    Args:
        path: an ARPA file, plain or ``.gz``, or a binary of KenLM's ``build_binary``.

    Attributes:
        model: the ``kenlm.Model``.
        names: what the model calls each word, by number; 0 is the unknown one.
        vocabulary: PREFIX, the trie of all its words.
        alone: float64 [words + 1], ln p of each without a history.
        ahead: float64 [prefixes + 1], the best ln p(word) without a history below each prefix of the
            trie, and at last that of an unknown word.
        table: what KenLM has been asked so far.

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: kenlm is not installed.
        ValueError: not a language model, or one without the list of its words.
    """

    def __init__(self, path: str | Path):
        self.model, words = open_model(path)
        from kenlm import State  # only open_model says what to do where it is missing

        self._new_state = State
        self.names = ["<unk>", *words]
        self.vocabulary = vocabulary_trie(words)
        self.alone = np.array([LN_10 * score for score in self._without_history()])
        self.ahead = np.append(best_below(self.vocabulary, self.alone), self.alone[UNKNOWN])
        self.forget()

    def _without_history(self) -> Iterator[float]:
        """log10 p of each word on its own, as words are numbered."""
        nothing, after = self._new_state(), self._new_state()
        self.model.NullContextWrite(nothing)
        for name in self.names:
            yield self.model.BaseScore(nothing, name, after)

    def forget(self) -> None:
        """Starts with an empty table; the numbers of states change."""
        self.table, self._size = new_table(0), 0
        self._numbers, self._states = {}, []
        start = self._new_state()
        self.model.BeginSentenceWrite(start)
        self._number(start)

    def make_room(self, answers: int) -> None:
        """Lets the table take that many more; it is emptied first if it holds very many."""
        if self._size > FORGET_AT:
            self.forget()
        self.grow(answers)

    def grow(self, answers: int) -> None:
        """As ``make_room``, and states keep their numbers: for within an utterance."""
        old, needed = self.table, self._size + answers
        if 2 * needed > len(old.answers):
            self.table = new_table(needed)
            insert(self.table, old.answers[old.answers["key"] != EMPTY])
            self.table.ends[: len(old.ends)] = old.ends

    def answer(self, questions: np.ndarray) -> None:
        """Puts what KenLM says into ``questions``, ANSWER [n]; the table must have room for it."""
        known, scores, found, after = {}, [], [], self._new_state()
        ask, states, names, numbers = self.model.BaseScore, self._states, self.names, self._numbers
        for key in questions["key"].tolist():
            if key not in known:
                self._size += 1  # before there may be a state more, should this be interrupted
                score = ask(states[key >> 32], names[key & 0xFFFFFFFF], after)
                number = numbers.get(after)
                if number is None:
                    number, after = self._number(after), self._new_state()
                known[key] = LN_10 * score, number
            score, number = known[key]
            scores.append(score)
            found.append(number)
        questions["score"], questions["state"] = scores, found

    def _number(self, state) -> int:
        """The number of KenLM's ``state``, which was never seen before."""
        number = len(self._states)
        self._states.append(state)  # before it can be found, should this be interrupted
        end = self.model.BaseScore(state, "</s>", self._new_state())
        self.table.ends[number] = LN_10 * end
        self._numbers[state] = number
        return number


def open_model(path: str | Path) -> tuple[Any, list[str]]:
    """The ``kenlm.Model`` of a file, and the words that it knows, sorted and without the marks.

    Words that are spelled otherwise than ours, in capitals say, are so in a copy in the cache.

    Raises:
        FileNotFoundError: no such file.
        ModuleNotFoundError: kenlm is not installed.
        ValueError: not a language model, or one without the list of its words, or a binary with
            words that are not spelled as ours.
    """
    try:
        import kenlm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the language model {path} is read by kenlm: pip install kenlm", name="kenlm"
        ) from error
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no language model at {path}: set lm_path to an ARPA (.arpa, .gz) or KenLM binary"
        )
    path = prepared(path)
    config = kenlm.Config()
    config.show_progress, config.arpa_complain = False, kenlm.ARPALoadComplain.NONE
    try:
        model = _read(lambda file: kenlm.Model(str(file), config), path)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} is not a language model that KenLM reads: {error}") from error
    try:
        words = [word.decode() for word in sorted({*vocabulary_of(path)} - MARKS)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} has words that are not UTF-8: {error}") from error
    if not words or not all(word in model for word in words):
        raise ValueError(f"{path} lacks the list of its words: give the ARPA file instead")
    return model, words


def _read(read: Callable[[Path], Any], path: Path) -> Any:
    """What ``read`` makes of the file, which is unpacked where KenLM was compiled without zlib."""
    try:
        return read(path)
    except (OSError, RuntimeError) as error:
        if "gzip" not in str(error):
            raise
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.stem
        with gzip.open(path) as packed, plain.open("wb") as out:
            shutil.copyfileobj(packed, out)
        return read(plain)


def vocabulary_of(path: Path) -> Iterator[bytes]:
    """The words of a language model file, its marks among them."""
    if is_binary(path):
        yield from words_of(path)
        return
    with open_arpa(path) as arpa:
        for _, word, *_ in arpa.ngrams(1):
            yield word
