"""Search for the words that sound like what was heard, by a model's phones and a language model.

A model with a ``phone_layer`` says what it heard twice, as labels and as phones. English spells one sound in
many ways, so phones are heard more surely; which words they are, the language model's vocabulary says, as
espeak-ng pronounces it (as in Miao, Gowayyed and Metze, "EESEN: end-to-end speech recognition using deep RNN
models and WFST-based decoding", ASRU 2015). A hypothesis, a sequence of words, is scored by

    ln p_ctc(its phones) + label_weight · ln p_ctc(its labels) + alpha · ln p_lm(words, </s>) + beta · words

The search goes by all of this but the labels, by which the best texts are then compared. Only words of the
vocabulary can be found.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asrlib.decoding.align import align
from asrlib.decoding.contract import LENGTH
from asrlib.decoding.greedy import Hypothesis
from asrlib.decoding.lexicon_search import (
    LexiconRules,
    advance,
    begin,
    finish,
    words_of_prefix,
)
from asrlib.decoding.ngram import NGram
from asrlib.decoding.options import (
    require,
    require_labels,
    require_limits,
    require_sound,
    require_weights,
)
from asrlib.decoding.prefix_search import insert
from asrlib.decoding.prior import require_prior, without_prior
from asrlib.decoding.pronunciations import lexicon_of, pronunciations
from asrlib.decoding.worker_pool import Workers
from asrlib.model.losses import ctc_feasible, ctc_losses_of
from asrlib.text import CTCTextEncoder
from asrlib.text.phones import PHONES

AT_ONCE = 16  # texts whose labels are scored together: each has a copy of the frames


class Task(NamedTuple):
    """An utterance for a worker."""

    phones: np.ndarray  # float64 [T', P]
    labels: np.ndarray  # float32 [T', V]
    alpha: float
    beta: float
    label_weight: float


class LexiconDecoder:
    """The most probable words of a vocabulary, by how they sound.

    Args:
        lm_path: language model (ARPA, plain or .gz, or KenLM binary), whose words are the vocabulary.
        lexicon_path: how they sound (``asrlib.text.lexicon``); words that are not in it cannot be found.
            espeak-ng says it if there is none.
        beam_width, blank_skip_threshold, token_min_logp, beam_prune_logp, alpha, beta, processes: as
            ``BeamDecoder`` has them, of phones.
        label_prior: [P], how probable each phone is in a frame of no matter what; tuning measures it.
        prior_weight: by which it is divided out.
        label_weight: of ln p of the labels; 0 reads phones alone.
        rescored: how many of the search's texts are compared by their labels.

    ``alpha``, ``beta``, ``prior_weight`` and ``label_weight`` may be set anew between calls, as tuning does.

    Raises:
        ValueError: an option out of its range, or a lexicon without the language model's words.
        FileNotFoundError, ModuleNotFoundError, ImportError: no language model or lexicon there, no kenlm, or
            no espeak-ng.
    """

    reads = ("phone_log_probs", LENGTH, "log_probs")

    def __init__(
        self,
        text_encoder: CTCTextEncoder,
        lm_path: str | Path,
        lexicon_path: str | Path | None = None,
        beam_width: int = 300,
        blank_skip_threshold: float = 0.999,
        token_min_logp: float = -8.0,
        beam_prune_logp: float = -14.0,
        alpha: float = 1.0,
        beta: float = 1.0,
        label_prior: Sequence[float] | None = None,
        prior_weight: float = 0.0,
        label_weight: float = 0.3,
        rescored: int = 100,
        processes: int | None = 1,
    ):
        require_limits(beam_width, token_min_logp, beam_prune_logp, blank_skip_threshold)
        require_weights(alpha, beta, 0.0)
        require(0 <= label_weight < math.inf, f"label_weight {label_weight}: 0 or more")
        require(rescored >= 1, f"rescored {rescored}: at least 1")
        require_prior(label_prior, prior_weight, 1 + len(PHONES))
        self.label_prior, self.prior_weight = label_prior, prior_weight
        self.text_encoder = text_encoder
        self.beam_width, self.rescored = int(beam_width), int(rescored)
        self.alpha, self.beta, self.label_weight = alpha, beta, label_weight
        self.lm = NGram(lm_path)
        # words that the labels cannot spell (4th) are none of ours, but may sound like one
        letters = set("".join(text_encoder.pieces))
        words = [word for word in self.lm.names[1:] if set(word) <= letters]
        said = lexicon_of(words, lexicon_path)
        self._rules = LexiconRules(
            *pronunciations(
                self.lm.names, self.lm.alone, {word: said[word] for word in words if word in said}
            ),
            width=self.beam_width,
            skip_above=math.log(blank_skip_threshold),
            token_min=float(token_min_logp),
            prune=float(beam_prune_logp),
            alpha=0.0,
            beta=0.0,
        )
        self._workers = Workers(processes)
        self.processes = self._workers.processes

    def __call__(
        self, phone_log_probs: Tensor, lengths: Tensor, log_probs: Tensor
    ) -> list[Hypothesis]:
        """``phone_log_probs`` [B, T', P] and ``log_probs`` [B, T', V] on any device, ``lengths`` int [B].

        ``tokens`` and ``frames`` are those of the text's best path through the labels.

        Raises:
            ValueError: V is not the text encoder's or P not of ``PHONES``, or NaN within a length.
        """
        require_labels(log_probs, self.text_encoder)
        require(
            phone_log_probs.shape[-1] == 1 + len(PHONES),
            f"{phone_log_probs.shape[-1]} phones, expected {1 + len(PHONES)}",
        )
        phones = without_prior(
            phone_log_probs.detach().cpu().double(), self.label_prior, self.prior_weight
        )
        labels = log_probs.detach().cpu().float()
        weights = float(self.alpha), float(self.beta), float(self.label_weight)
        tasks = [
            Task(said[:n].contiguous().numpy(), spelled[:n].contiguous().numpy(), *weights)
            for said, spelled, n in zip(phones, labels, lengths.tolist(), strict=True)
        ]
        require_sound(task.phones for task in tasks)
        if self.label_weight:
            require_sound(task.labels for task in tasks)
        if self._workers.begins_with(tasks):  # what is compiled here, they inherit
            self._decode(tasks[-1])
        return self._workers.map(self._decode, tasks)

    def _decode(self, task: Task) -> Hypothesis:
        """The best text by both scores, with its labels dated; in a worker or here."""
        texts = self._search(task)
        if task.label_weight and len(texts) > 1:
            texts = self._with_labels(texts, task)
        text, score = max(texts, key=lambda scored: scored[1])
        tokens = self.text_encoder.encode(text)
        frames = align(task.labels, tokens) if tokens else []
        return Hypothesis(text, float(score), tokens, frames)

    def _search(self, task: Task) -> list[tuple[str, float]]:
        """The best texts, as many as are rescored, and the search's scores."""
        rules = self._rules._replace(alpha=task.alpha, beta=task.beta)
        self.lm.make_room(0)
        nodes, beams = begin()
        frame, answered, size = 0, False, len(nodes)
        while frame < len(task.phones):
            frame, questions, beams, nodes, size = advance(
                task.phones, frame, answered, beams, nodes, size, rules, self.lm.table
            )
            self.lm.grow(len(questions))
            self.lm.answer(questions)
            insert(self.lm.table, questions)
            answered = True
        totals = finish(beams, nodes, task.alpha, self.lm.table.ends)
        n = self.rescored if task.label_weight else 1
        texts: dict[str, float] = {}  # of several ways to say one, the best is the first
        for i in np.argsort(-totals, kind="stable"):
            if len(texts) < n and (totals[i] > -np.inf or not texts):
                # of one that is not at the end of a word, the words before count
                words = words_of_prefix(beams[i]["node"], nodes)
                texts.setdefault(" ".join(self.lm.names[word] for word in words), totals[i])
        return [*texts.items()]

    def _with_labels(self, texts: list[tuple[str, float]], task: Task) -> list[tuple[str, float]]:
        """``texts`` with the score of their labels; those whose labels do not fit are last."""
        encoded = [torch.tensor(self.text_encoder.encode(text)) for text, _ in texts]
        lengths = torch.tensor([len(tokens) for tokens in encoded])
        labels = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True).long()
        frames = torch.full_like(lengths, len(task.labels))
        feasible = ctc_feasible(frames, labels, lengths)
        losses = torch.full((len(texts),), math.inf)
        log_probs = torch.from_numpy(task.labels)
        for rows in feasible.nonzero().flatten().split(AT_ONCE):
            said = log_probs.expand(len(rows), -1, -1)
            losses[rows] = ctc_losses_of(said, frames[rows], labels[rows], lengths[rows])
        if not feasible.any():
            return texts
        return [
            (text, score - task.label_weight * loss)
            for (text, score), loss in zip(texts, losses.tolist(), strict=True)
        ]
