"""Beam search by attention, alone or with the opinion of CTC, in one pass.

Watanabe et al., "Hybrid CTC/attention architecture for end-to-end speech recognition", 2017. A text is
scored by

    (1 − w) · ln p_attention(labels, end) + w · ln p_ctc(text begins with the labels; is they, at the end)
    + coverage · (frames covered) + alpha · ln p_lm(words, </s>) + beta · (number of words)

with w = ``ctc_weight``. How it is searched for, and where it ends: ``attention_search``.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asrlib.decoding.align import align
from asrlib.decoding.attention_search import Node, Search, path_of
from asrlib.decoding.greedy import Hypothesis
from asrlib.decoding.options import require, require_labels, require_weights
from asrlib.model.las import Speller
from asrlib.model.masking import length_mask
from asrlib.text import CTCTextEncoder


class AttentionDecoder:
    """The most probable text by attention, CTC and a language model of words, as far as they are asked.

    Args:
        text_encoder: with a language model its ``pieces`` tell what each label writes.
        speller: of the model whose output is decoded.
        beam_width: texts kept from label to label; 1 is greedy.
        ctc_weight: w in [0, 1]; 0 is attention alone, 1 CTC's prefix scores alone.
        coverage: added for each frame that got attention.
        lm_path: language model (ARPA, plain or .gz, or KenLM binary); none if not given.
        alpha: weight of the language model. It and the next two matter with ``lm_path`` only, and
            may be set anew between calls, as tuning does.
        beta: added for each word.
        unk_score_offset: added to log10 p of a word outside the language model's vocabulary.

    Raises:
        ValueError: an option out of its range.
        FileNotFoundError, ModuleNotFoundError: no language model there, or no kenlm.
    """

    reads = ("log_probs", "log_probs_length", "encoded")

    def __init__(
        self,
        text_encoder: CTCTextEncoder,
        speller: Speller,
        beam_width: int = 10,
        ctc_weight: float = 0.3,
        coverage: float = 0.0,
        lm_path: str | Path | None = None,
        alpha: float = 0.5,
        beta: float = 1.5,
        unk_score_offset: float = -10.0,
    ):
        require(beam_width >= 1, f"beam_width {beam_width}: at least 1")
        require(0 <= ctc_weight <= 1, f"ctc_weight {ctc_weight}: between 0 and 1")
        require(0 <= coverage < math.inf, f"coverage {coverage}: 0 or more")
        require_weights(alpha, beta, unk_score_offset)
        self.text_encoder, self.speller = text_encoder, speller
        self.beam_width, self.ctc_weight, self.coverage = int(beam_width), ctc_weight, coverage
        self.alpha, self.beta, self.unk_score_offset = alpha, beta, unk_score_offset
        self.fusion = None
        if lm_path is not None:
            from asrlib.decoding.word_fusion import WordFusion  # needs kenlm and numba

            self.fusion = WordFusion(text_encoder, lm_path, alpha, beta, unk_score_offset)

    def __call__(self, log_probs: Tensor, lengths: Tensor, encoded: Tensor) -> list[Hypothesis]:
        """``log_probs`` float [B, T', V], ``lengths`` int [B], ``encoded`` [B, T', D] → B hypotheses.

        ``frames`` are those of CTC's best path that writes the tokens; without CTC, those that got
        most attention, none before the one of the token before.

        Raises:
            ValueError: V is not the text encoder's, or NaN in what is decoded.
        """
        return [found[0] for found in self.nbest(log_probs, lengths, encoded, 1)]

    @torch.no_grad()
    def nbest(
        self, log_probs: Tensor, lengths: Tensor, encoded: Tensor, n: int | None = None
    ) -> list[list[Hypothesis]]:
        """The ``n`` best (else as many as the beam is wide, at most) of each utterance, best first.

        Raises:
            ValueError: as ``__call__`` does.
        """
        require_labels(log_probs, self.text_encoder)
        real = length_mask(lengths, log_probs.shape[1], log_probs.device).unsqueeze(-1)
        for name, x in (("log_probs", log_probs), ("encoded", encoded)):
            require(not (x.isnan() & real).any(), f"{name} hold NaN: is the checkpoint sound?")
        if self.fusion is not None:
            self.fusion.alpha, self.fusion.beta = float(self.alpha), float(self.beta)
            self.fusion.unk_score_offset = float(self.unk_score_offset)
        n = self.beam_width if n is None else min(n, self.beam_width)
        ended = Search(self, log_probs, lengths, encoded, n).run()
        rows = zip(ended, log_probs.detach().cpu().double().numpy(), lengths.tolist(), strict=True)
        return [
            [self._hypothesis(score, node, row[:length]) for score, node in best]
            for best, row, length in rows
        ]

    def _hypothesis(self, score: float, node: Node | None, log_probs: np.ndarray) -> Hypothesis:
        path = path_of(node)
        tokens = [node.label for node in path]
        frames = np.maximum.accumulate([node.frame for node in path], dtype=int).tolist()
        if tokens and self.ctc_weight:
            frames = align(log_probs, tokens)
        return Hypothesis(self.text_encoder.decode(tokens), score, tokens, frames)
