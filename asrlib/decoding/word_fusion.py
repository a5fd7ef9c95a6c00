"""A word n-gram language model beside a search that goes from label to label.

It speaks where a word ends: at a label that begins the next, and at the end of the text. The terms are
those of ``asrlib.decoding.beam``: alpha · ln p of the words and ``</s>``, beta for each word, and
``unk_score_offset`` on log10 p of a word that it does not know.
"""

from pathlib import Path
from typing import Any, NamedTuple

from asrlib.decoding.beam import word_mark
from asrlib.decoding.ngram import LN_10, open_model
from asrlib.text import CTCTextEncoder


class Writing(NamedTuple):
    """Where a text stands: what the language model has heard, and the word that is being written."""

    heard: Any  # KenLM's state
    word: str = ""


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
        FileNotFoundError, ModuleNotFoundError, ValueError: as ``asrlib.decoding.ngram.open_model``.
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
        self._model, words = open_model(lm_path)
        self._known = set(words)
        from kenlm import State  # only open_model says what to do where it is missing

        self._new_state = State
        marks = [word_mark(piece) for piece in text_encoder.pieces]
        self.ends_word = [bool(mark) for mark in marks]
        self._written = [
            piece.removeprefix(mark) for piece, mark in zip(text_encoder.pieces, marks, strict=True)
        ]
        self._answers: dict[Writing, tuple[float, float, Any]] = {}  # in log10, without weights

    def start(self) -> Writing:
        """Before the first label. Forgets what was asked for other utterances."""
        self._answers.clear()
        heard = self._new_state()
        self._model.BeginSentenceWrite(heard)
        return Writing(heard)

    def closing(self, writing: Writing) -> Closing:
        """What it would say if the word ended here."""
        if writing not in self._answers:
            self._answers[writing] = self._ask(writing)
        word, end, heard = self._answers[writing]
        score = self.alpha * LN_10 * word
        if writing.word:
            score += self.beta
            if writing.word not in self._known:
                score += self.alpha * LN_10 * self.unk_score_offset
        return Closing(score, self.alpha * LN_10 * end, heard)

    def write(self, writing: Writing, label: int) -> Writing:
        """After one label more."""
        if self.ends_word[label]:
            return Writing(self.closing(writing).heard, self._written[label])
        return writing._replace(word=writing.word + self._written[label])

    def _ask(self, writing: Writing) -> tuple[float, float, Any]:
        heard, score = writing.heard, 0.0
        if writing.word:
            heard = self._new_state()
            word = writing.word if writing.word in self._known else "<unk>"
            score = self._model.BaseScore(writing.heard, word, heard)
        return score, self._model.BaseScore(heard, "</s>", self._new_state()), heard
