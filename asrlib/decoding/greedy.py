"""Greedy (best-path) CTC decoding."""

import math
from dataclasses import dataclass

from torch import Tensor

from asrlib.text import CTCTextEncoder, collapse


@dataclass(frozen=True)
class Hypothesis:
    """What a decoder says about one utterance."""

    text: str
    score: float  # natural log; of the best path for greedy
    tokens: list[int]  # label ids [U]
    frames: list[int]  # encoder frame where each token starts [U]


class GreedyDecoder:
    """The most probable label of each frame, repeats merged, blanks removed."""

    def __init__(self, text_encoder: CTCTextEncoder):
        self.text_encoder = text_encoder

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """``log_probs`` float [B, T', V] on any device, ``lengths`` int [B] → B hypotheses.

        Raises:
            ValueError: NaN in a frame that counts.
        """
        best, labels = log_probs.max(dim=-1)
        hypotheses = []
        rows = zip(best.cpu(), labels.cpu(), lengths.tolist(), strict=True)
        for scores, path, length in rows:
            tokens, frames = collapse(path[:length].tolist())
            score = float(scores[:length].sum())
            if math.isnan(score):
                raise ValueError("log_probs hold NaN: is the checkpoint sound?")
            hypotheses.append(Hypothesis(self.text_encoder.decode(tokens), score, tokens, frames))
        return hypotheses
