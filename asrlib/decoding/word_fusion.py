"""A word n-gram language model beside a search that goes from label to label.

It speaks where a word ends: at a label that begins the next, and at the end of the text. The terms are
those of ``asrlib.decoding.beam``: alpha · ln p of the words and ``</s>``, beta for each word, and
``unk_score_offset`` on log10 p of a word that it does not know.

Until then a word counts as the most frequent one that begins so, as in ``asrlib.decoding.prefix_search``.
"""

from pathlib import Path
from typing import Any, NamedTuple

from asrlib.decoding.beam import written_by
from asrlib.decoding.ngram import LN_10, NGram
from asrlib.decoding.prefix_search import EMPTY, ROOT, spell
from asrlib.decoding.vocabulary import UNKNOWN
from asrlib.text import CTCTextEncoder

FORGET_AT = 1_000_000  # prefixes, some 200 MB


class Writing(NamedTuple):
    """Where a text stands."""

    heard: Any  # KenLM's state, before the word that is being written
    prefix: int = ROOT  # that word so far, in the vocabulary; EMPTY: no word begins so


class Closing(NamedTuple):
    """What happens if the word ends here."""

    score: float  # of the word; 0 if there is none
    end: float  # of </s> after it
    heard: Any


class WordFusion:
    """The language model of a file, and what the labels of ``text_encoder`` write of its words.

    ``alpha``, ``beta`` and ``unk_score_offset`` may be set anew between searches.

    Attributes:
        ends_word: bool for each label: it ends the word before it.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: as ``asrlib.decoding.ngram.NGram``.
    """

    def __init__(
        self,
        text_encoder: CTCTextEncoder,
        lm_path: str | Path,
        alpha: float,
        beta: float,
        unk_score_offset: float,
    ):
        self.alpha, self.beta, self.unk_score_offset = alpha, beta, unk_score_offset
        self._lm = NGram(lm_path)
        from kenlm import State  # only NGram says what to do where it is missing

        self._new_state = State
        self.ends_word, self._written = written_by(text_encoder.pieces)
        self._least = self._lm.ahead.min()  # so that no prefix gains by leaving the vocabulary
        self._answers: dict[Writing, tuple[float, float, Any]] = {}  # in log10, without weights
        self._spelled: dict[tuple[int, int], int] = {}  # prefixes, by a prefix and a label

    def start(self) -> Writing:
        """Before the first label. Forgets what was asked for other utterances."""
        self._answers.clear()
        if len(self._spelled) > FORGET_AT:
            self._spelled.clear()
        heard = self._new_state()
        self._lm.model.BeginSentenceWrite(heard)
        return Writing(heard)

    def closing(self, writing: Writing) -> Closing:
        """What it would say if the word ended here."""
        if writing not in self._answers:
            self._answers[writing] = self._ask(writing)
        word, end, heard = self._answers[writing]
        score = self.alpha * LN_10 * word
        if writing.prefix != ROOT:
            score += self.beta
            if self._word(writing.prefix) == UNKNOWN:
                score += self.alpha * LN_10 * self.unk_score_offset
        return Closing(score, self.alpha * LN_10 * end, heard)

    def ahead(self, writing: Writing, label: int) -> float:
        """What it would say, without a history, of the most frequent word that begins so, after one
        label more. It is no part of a score: it lets words compare of which one has ended."""
        prefix = self._spell(ROOT if self.ends_word[label] else writing.prefix, label)
        if prefix == EMPTY:
            return self.alpha * (self._least + LN_10 * self.unk_score_offset) + self.beta
        return self.alpha * self._lm.ahead[prefix] + self.beta

    def write(self, writing: Writing, label: int) -> Writing:
        """After one label more."""
        if self.ends_word[label]:
            return Writing(self.closing(writing).heard, self._spell(ROOT, label))
        return writing._replace(prefix=self._spell(writing.prefix, label))

    def _spell(self, prefix: int, label: int) -> int:
        """The prefix of the vocabulary that ``label`` makes of another."""
        if (prefix, label) not in self._spelled:
            longer = prefix
            for letter in self._written[label]:
                if longer != EMPTY:
                    longer = spell(longer, letter, self._lm.vocabulary)
            self._spelled[prefix, label] = longer
        return self._spelled[prefix, label]

    def _word(self, prefix: int) -> int:
        """The number of the word that is spelled so."""
        return UNKNOWN if prefix == EMPTY else int(self._lm.vocabulary[prefix]["word"])

    def _ask(self, writing: Writing) -> tuple[float, float, Any]:
        heard, score = writing.heard, 0.0
        if writing.prefix != ROOT:
            heard = self._new_state()
            name = self._lm.names[self._word(writing.prefix)]
            score = self._lm.model.BaseScore(writing.heard, name, heard)
        return score, self._lm.model.BaseScore(heard, "</s>", self._new_state()), heard
