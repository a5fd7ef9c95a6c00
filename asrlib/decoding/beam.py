"""CTC prefix beam search, with a word n-gram language model if one is given.

A hypothesis is scored by

    ln p_ctc(labels) + alpha · ln p_lm(words, </s>) + beta · (number of words)

and ``unk_score_offset`` is added to log10 p_lm of each word that the language model does not know:
pyctcdecode's terms, so that weights found for one decoder hold for the other. With wide limits the
sum over paths is exact; ``prefix_search`` says how it is made.

With a ``prior_weight`` γ the probability of each label in each frame is divided by the label's prior to
the power of γ, and a frame's are scaled to sum to 1 again (``prior.py``).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from asrlib.decoding.greedy import Hypothesis
from asrlib.decoding.ngram import LN_10, NGram, new_table
from asrlib.decoding.options import (
    require_labels,
    require_limits,
    require_sound,
    require_weights,
)
from asrlib.decoding.prefix_layout import ANSWER, Found, Rules
from asrlib.decoding.prefix_search import EMPTY, best_prefixes
from asrlib.decoding.prior import require_prior, without_prior
from asrlib.decoding.vocabulary import vocabulary_trie
from asrlib.decoding.worker_pool import Workers
from asrlib.text import CTCTextEncoder
from asrlib.text.bpe import WORD_START


class Task(NamedTuple):
    """An utterance for a worker."""

    log_probs: np.ndarray  # float64 [T', V]
    weights: dict[str, float]  # of Rules
    n: int


class BeamDecoder:
    """The most probable labels, summed over the paths that write them.

    Args:
        text_encoder: with an LM its ``pieces`` tell what each label writes and where words start.
        beam_width: prefixes kept from frame to frame.
        blank_skip_threshold: probability of the blank above which a frame is read as a blank; 1 reads
            all frames.
        token_min_logp: labels below this natural log probability, the blank among them, are not
            tried in a frame, except the best of all; -inf tries all.
        beam_prune_logp: prefixes that score worse than the best by more than this are dropped.
        lm_path: language model (ARPA, plain or .gz, or KenLM binary); none if not given.
        alpha: weight of the language model. It and the next two matter with ``lm_path`` only, and
            may be set anew between calls, as tuning does.
        beta: added for each word.
        unk_score_offset: added to log10 p of a word outside the language model's vocabulary.
        label_prior: [V], how probable each label is in a frame of no matter what; tuning measures it.
        prior_weight: γ, by which it is divided out; may be set anew between calls, too.
        processes: how many share a batch; as many as there are usable cores if None. Where processes
            cannot be forked, and with 1, there is only this one.

    Raises:
        ValueError: an option out of its range.
        FileNotFoundError, ModuleNotFoundError: no language model there, or no kenlm.
    """

    def __init__(
        self,
        text_encoder: CTCTextEncoder,
        beam_width: int = 100,
        blank_skip_threshold: float = 0.999,
        token_min_logp: float = -5.0,
        beam_prune_logp: float = -10.0,
        lm_path: str | Path | None = None,
        alpha: float = 0.5,
        beta: float = 1.5,
        unk_score_offset: float = -10.0,
        label_prior: Sequence[float] | None = None,
        prior_weight: float = 0.0,
        processes: int | None = 1,
    ):
        require_limits(beam_width, token_min_logp, beam_prune_logp, blank_skip_threshold)
        require_weights(alpha, beta, unk_score_offset)
        require_prior(label_prior, prior_weight, len(text_encoder))
        self.text_encoder = text_encoder
        self.beam_width, self.blank_skip_threshold = int(beam_width), blank_skip_threshold
        self.token_min_logp, self.beam_prune_logp = token_min_logp, beam_prune_logp
        self.alpha, self.beta, self.unk_score_offset = alpha, beta, unk_score_offset
        self.label_prior, self.prior_weight = label_prior, prior_weight
        self.lm = None if lm_path is None else NGram(lm_path)
        self._rules = self._rules_without_weights()
        self._workers = Workers(processes)
        self.processes = self._workers.processes

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """``log_probs`` float [B, T', V] on any device, ``lengths`` int [B] → B hypotheses.

        ``frames`` are those of the best path that writes the tokens.

        Raises:
            ValueError: V is not the text encoder's, or NaN within a length.
        """
        return [hypotheses[0] for hypotheses in self.nbest(log_probs, lengths, 1)]

    def nbest(
        self, log_probs: Tensor, lengths: Tensor, n: int | None = None
    ) -> list[list[Hypothesis]]:
        """The ``n`` best (else all of the beam) of each utterance, best first; their labels differ.

        Raises:
            ValueError: as ``__call__`` does.
        """
        require_labels(log_probs, self.text_encoder)
        log_probs = log_probs.detach().cpu().double()
        log_probs = without_prior(log_probs, self.label_prior, self.prior_weight)
        rows = zip(log_probs.numpy(), lengths.tolist(), strict=True)
        n, weights = self.beam_width if n is None else min(n, self.beam_width), self._weights()
        tasks = [Task(np.ascontiguousarray(row[:length]), weights, n) for row, length in rows]
        require_sound(task.log_probs for task in tasks)
        if self._workers.begins_with(tasks):  # what is compiled here, they inherit
            self._decode(Task(np.empty((0, len(self.text_encoder))), weights, 1))
        return self._workers.map(self._decode, tasks)

    def _decode(self, task: Task) -> list[Hypothesis]:
        """In a worker or here; torch stays out of it, since its threads do not survive a fork."""
        log_probs, weights, n = task
        rules, frames = self._rules._replace(**weights), len(log_probs)
        if self.lm:
            self.lm.make_room(rules.width * (frames + 1))  # each frame asks once, and the end
        found = Found(np.empty(n), np.empty(n, np.int64), np.empty((n, 2, frames), np.int64))
        questions = np.empty(rules.width, ANSWER)
        search = best_prefixes(
            log_probs, rules, self.lm.table if self.lm else _NO_ANSWERS, questions, found
        )
        try:
            for missing in search:
                self.lm.answer(questions[:missing])
        finally:
            for _ in search:  # only at its end does numba free what it holds
                pass
        return [
            self._hypothesis(score, path[:, :size])
            for score, size, path in zip(*found, strict=True)
            if size != EMPTY
        ]

    def _hypothesis(self, score: float, path: np.ndarray) -> Hypothesis:
        tokens, frames = path.tolist()
        return Hypothesis(self.text_encoder.decode(tokens), float(score), tokens, frames)

    def _rules_without_weights(self) -> Rules:
        """The options as the search reads them; without a language model no label ends a word."""
        pieces = self.text_encoder.pieces if self.lm else [""] * len(self.text_encoder)
        ends_word, written = written_by(pieces)
        return Rules(
            ends_word=np.array(ends_word),
            letters=np.frombuffer(b"".join(written), np.uint8).copy(),
            starts=np.cumsum([0, *map(len, written)]),
            vocabulary=self.lm.vocabulary if self.lm else vocabulary_trie([]),
            ahead=self.lm.ahead if self.lm else np.zeros(2),
            width=self.beam_width,
            skip_above=math.log(self.blank_skip_threshold),
            token_min=float(self.token_min_logp),
            prune=float(self.beam_prune_logp),
            alpha=0.0,
            beta=0.0,
            unknown=0.0,
        )

    def _weights(self) -> dict[str, float]:
        """What the rules lack, as it is now."""
        alpha, offset = float(self.alpha), float(self.unk_score_offset)
        return {"alpha": alpha, "beta": float(self.beta), "unknown": alpha * LN_10 * offset}


_NO_ANSWERS = new_table(0)


def written_by(pieces: Sequence[str]) -> tuple[list[bool], list[bytes]]:
    """Of each piece, whether it ends the word before it, and the bytes of a word that it writes."""
    ends_word = [piece.startswith((" ", WORD_START)) for piece in pieces]
    written = [piece[ends:].encode() for piece, ends in zip(pieces, ends_word, strict=True)]
    return ends_word, written
