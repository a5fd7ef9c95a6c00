"""CTC prefix beam search, with a word n-gram language model if one is given.

A hypothesis is scored by

    ln p_ctc(labels) + alpha · ln p_lm(words, </s>) + beta · (number of words)

and ``unk_score_offset`` is added to log10 p_lm of each word that the language model does not know:
pyctcdecode's terms, so that weights found for one decoder hold for the other. With wide limits the
sum over paths is exact; ``prefix_search`` says how it is made.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from asrlib.decoding.greedy import Hypothesis
from asrlib.decoding.ngram import LN_10, NGram, Table, new_table
from asrlib.decoding.prefix_search import (
    BLANK,
    EMPTY,
    ROOT,
    WAITING,
    advance,
    finish,
    trace,
)
from asrlib.text import CTCTextEncoder

WORD_STARTS = (" ", "▁")  # a piece that begins so ends the word before it

NODE = np.dtype(
    [
        ("parent", np.int32),
        ("token", np.int32),
        ("child", np.int32),  # the youngest; the others follow by sibling
        ("sibling", np.int32),
        ("beam", np.int32),  # index in the beam
        ("letters", np.int32),  # bytes of the word being written
        ("low", np.int32),  # words [low, high) of the vocabulary begin with them
        ("high", np.int32),
        ("state", np.int32),  # of the language model, before this word
        ("after", np.int32),  # and after it, should it end here
        ("word", np.int32),  # its number, should it end here
        ("lm", np.float64),  # score of the finished words
        ("close", np.float64),  # score of the word, should it end here; NaN: not known yet
        ("sure", np.float64),  # of that, what does not depend on the language model
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
        ("label", np.float64),
        ("best_blank", np.float64),  # ln p of the best one
        ("best_label", np.float64),
        ("total", np.float64),  # with the language model's score
    ],
    align=True,
)
EMISSION = np.dtype([("previous", np.int32), ("frame", np.int32)])


class Rules(NamedTuple):
    """What holds for every utterance; scores are natural logarithms."""

    ends_word: np.ndarray  # bool [V]: the label ends the word before it
    letters: np.ndarray  # uint8: the bytes that the labels add to a word
    starts: np.ndarray  # int64 [V + 1]: where each label's begin
    words: np.ndarray  # uint8: the bytes of the vocabulary's words, sorted
    word_starts: np.ndarray  # int64 [words + 1]
    width: int
    skip_above: float
    token_min: float
    prune: float
    alpha: float
    beta: float
    unknown: float  # added for a word outside the vocabulary


class Search(NamedTuple):
    """How far the search of one utterance has come."""

    nodes: np.ndarray  # NODE: the trie of prefixes
    beams: np.ndarray  # BEAM [width], best first
    candidates: np.ndarray  # BEAM: the prefixes that stay, in the order of beams, then new ones
    emissions: np.ndarray  # EMISSION: the trie of token times
    waiting: np.ndarray  # int64 [width]: keys that the table must hold before the search goes on
    counts: np.ndarray  # int64 [4]


class BeamDecoder:
    """The most probable labels, summed over the paths that write them.

    Args:
        text_encoder: with an LM its ``pieces`` tell what each label writes and where words start.
        beam_width: prefixes kept from frame to frame.
        blank_skip_threshold: probability of the blank above which a frame is read as a blank; 1 reads
            all frames.
        token_min_logp: labels below this natural log probability extend nothing in a frame, except
            the best of all; -inf tries all.
        beam_prune_logp: prefixes that score worse than the best by more than this are dropped.
        lm_path: language model (ARPA, plain or .gz, or KenLM binary); none if not given.
        alpha: weight of the language model. It and the next two matter with ``lm_path`` only, and
            may be set anew between calls, as tuning does.
        beta: added for each word.
        unk_score_offset: added to log10 p of a word outside the language model's vocabulary.

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
    ):
        _require(beam_width >= 1, f"beam_width {beam_width}: at least 1")
        _require(
            0 < blank_skip_threshold <= 1,
            f"blank_skip_threshold {blank_skip_threshold}: a probability; 1 skips nothing",
        )
        _require(token_min_logp <= 0, f"token_min_logp {token_min_logp}: a logarithm, 0 or less")
        _require(beam_prune_logp <= 0, f"beam_prune_logp {beam_prune_logp}: 0 or less")
        _require(
            -math.inf < unk_score_offset <= 0,
            f"unk_score_offset {unk_score_offset}: a finite number, 0 or less",
        )
        _require(0 <= alpha < math.inf, f"alpha {alpha}: 0 or more")
        _require(math.isfinite(beta), f"beta {beta}: a finite number")
        self.text_encoder = text_encoder
        self.beam_width, self.blank_skip_threshold = int(beam_width), blank_skip_threshold
        self.token_min_logp, self.beam_prune_logp = token_min_logp, beam_prune_logp
        self.alpha, self.beta, self.unk_score_offset = alpha, beta, unk_score_offset
        self.lm = None if lm_path is None else NGram(lm_path)
        self._rules = self._rules_without_weights()

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
        labels = len(self.text_encoder)
        _require(log_probs.shape[-1] == labels, f"{log_probs.shape[-1]} labels, expected {labels}")
        rules = self._weighted_rules()
        rows = zip(log_probs.detach().cpu().double().numpy(), lengths.tolist(), strict=True)
        return [self._decode(np.ascontiguousarray(row[:length]), rules, n) for row, length in rows]

    def _decode(self, log_probs: np.ndarray, rules: Rules, n: int | None) -> list[Hypothesis]:
        """Hypotheses of one utterance's float64 [T', V]."""
        _require(not np.isnan(log_probs).any(), "log_probs hold NaN: is the checkpoint sound?")
        if self.lm:
            self.lm.forget_if_large()
        search, frame = new_search(log_probs, rules), 0
        while (frame := advance(log_probs, frame, rules, self._table, search)) < len(log_probs):
            if search.counts[WAITING]:
                self._answer(search)
            else:  # for want of nodes
                more = np.empty(len(search.nodes), NODE)
                search = search._replace(nodes=np.concatenate([search.nodes, more]))
        while not len(order := finish(rules, self._table, search)):
            self._answer(search)
        return [self._hypothesis(search.beams[i], search) for i in order[:n]]

    def _answer(self, search: Search) -> None:
        self.lm.answer(search.waiting[: search.counts[WAITING]])

    def _hypothesis(self, beam: np.void, search: Search) -> Hypothesis:
        tokens, frames = (array.tolist() for array in trace(beam, search))
        return Hypothesis(self.text_encoder.decode(tokens), float(beam["total"]), tokens, frames)

    @property
    def _table(self) -> Table:
        return self.lm.table if self.lm else _NO_ANSWERS

    def _rules_without_weights(self) -> Rules:
        """The options as the search reads them; without a language model no label ends a word."""
        pieces = self.text_encoder.pieces if self.lm else [""] * len(self.text_encoder)
        written = [piece.removeprefix(_mark(piece)).encode() for piece in pieces]
        return Rules(
            ends_word=np.array([bool(_mark(piece)) for piece in pieces]),
            letters=_bytes(written),
            starts=_offsets(written),
            words=self.lm.words if self.lm else _bytes([]),
            word_starts=self.lm.word_starts if self.lm else _offsets([]),
            width=self.beam_width,
            skip_above=math.log(self.blank_skip_threshold),
            token_min=float(self.token_min_logp),
            prune=float(self.beam_prune_logp),
            alpha=0.0,
            beta=0.0,
            unknown=0.0,
        )

    def _weighted_rules(self) -> Rules:
        """The rules with the weights as they are now."""
        alpha, offset = float(self.alpha), float(self.unk_score_offset)
        return self._rules._replace(
            alpha=alpha, beta=float(self.beta), unknown=alpha * LN_10 * offset
        )


_NO_ANSWERS = new_table(1)


def new_search(log_probs: np.ndarray, rules: Rules) -> Search:
    """The search of [T', V] before its first frame: the empty prefix alone, with probability 1."""
    (frames, labels), width = log_probs.shape, rules.width
    size = width * labels  # candidates of one frame; memory that is not written costs nothing
    search = Search(
        nodes=np.empty(size + 1, NODE),
        beams=np.empty(width, BEAM),
        candidates=np.empty(size, BEAM),
        emissions=np.empty(frames * width, EMISSION),
        waiting=np.empty(width, np.int64),
        counts=np.zeros(4, np.int64),
    )
    words = len(rules.word_starts) - 1
    # parent, token, child, sibling, beam, letters, low, high, state, after, word, lm, close, sure
    search.nodes[ROOT] = (EMPTY, BLANK, EMPTY, EMPTY, 0, 0, 0, words, 0, 0, 0, 0.0, np.nan, 0.0)
    search.beams[0] = (ROOT, False, EMPTY, EMPTY, 0.0, -np.inf, 0.0, -np.inf, 0.0)
    search.counts[:2] = 1  # of beams and nodes
    return search


def _mark(piece: str) -> str:
    """The word start at the beginning of ``piece``, if there is one."""
    return next((mark for mark in WORD_STARTS if piece.startswith(mark)), "")


def _bytes(texts: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(texts), np.uint8).copy()


def _offsets(texts: Sequence[bytes]) -> np.ndarray:
    return np.cumsum([0, *map(len, texts)], dtype=np.int64)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
