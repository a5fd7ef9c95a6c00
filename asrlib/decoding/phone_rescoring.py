"""Beam search whose best texts are asked again whether they sound like what was heard.

A model with ``phone_layer`` says what it heard twice: as labels, and as phones. The search goes by the labels
and the language model alone; each of the texts that it likes best is then scored by

    its score there + phone_weight · ln p_ctc(its phones)

so that of two spellings that the labels cannot tell apart the one wins that is said like that. The phones
know nothing of spelling, and err elsewhere than the labels do.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from asrlib.decoding.beam import BeamDecoder
from asrlib.decoding.contract import LENGTH
from asrlib.decoding.greedy import Hypothesis
from asrlib.decoding.options import require
from asrlib.model.losses import ctc_feasible, ctc_losses_of
from asrlib.text import CTCTextEncoder
from asrlib.text.phones import Pronouncer


class PhoneRescoringDecoder(BeamDecoder):
    """``BeamDecoder``, with phones.

    Args:
        phone_weight: of ln p of the phones; may be set anew between calls, as tuning does.
        rescored: how many of the search's texts are.
        options: as ``BeamDecoder`` has them.

    Raises:
        ValueError, FileNotFoundError, ModuleNotFoundError: as ``BeamDecoder``.
    """

    reads = ("log_probs", LENGTH, "phone_log_probs")

    def __init__(
        self,
        text_encoder: CTCTextEncoder,
        phone_weight: float = 0.5,
        rescored: int = 100,
        **options: Any,
    ):
        super().__init__(text_encoder, **options)
        require(0 <= phone_weight < math.inf, f"phone_weight {phone_weight}: 0 or more")
        require(rescored >= 1, f"rescored {rescored}: at least 1")
        self.phone_weight, self.rescored = phone_weight, rescored
        self._pronounce = Pronouncer()

    def __call__(
        self, log_probs: Tensor, lengths: Tensor, phone_log_probs: Tensor
    ) -> list[Hypothesis]:
        """``log_probs`` [B, T', V] and ``phone_log_probs`` [B, T', P] on any device, ``lengths`` int [B].

        Raises:
            ValueError: as ``BeamDecoder``; ImportError: no espeak-ng.
        """
        found = self.nbest(log_probs, lengths, self.rescored)
        if self.phone_weight == 0:
            return [hypotheses[0] for hypotheses in found]
        rows = zip(found, phone_log_probs.float().cpu(), lengths.tolist(), strict=True)
        return [self._best(hypotheses, row[:length]) for hypotheses, row, length in rows]

    def _best(self, hypotheses: list[Hypothesis], phone_log_probs: Tensor) -> Hypothesis:
        """The best by both scores; the search's own where no text's phones fit into the frames."""
        phones, sizes = self._pronounce([h.text for h in hypotheses])
        frames = torch.full_like(sizes, len(phone_log_probs))
        possible = ctc_feasible(frames, phones, sizes).nonzero().flatten()
        if not len(possible):
            return hypotheses[0]
        said = phone_log_probs.expand(len(possible), -1, -1)
        losses = ctc_losses_of(said, frames[possible], phones[possible], sizes[possible])
        scored = [
            replace(hypotheses[i], score=hypotheses[i].score - self.phone_weight * loss)
            for i, loss in zip(possible.tolist(), losses.tolist(), strict=True)
        ]
        return max(scored, key=lambda h: h.score)
