"""Decoders: ``log_probs, lengths -> [Hypothesis]``."""

from asrlib.decoding.greedy import GreedyDecoder, Hypothesis
from asrlib.decoding.longform import LongForm

__all__ = ["GreedyDecoder", "Hypothesis", "LongForm"]
