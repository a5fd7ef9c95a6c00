"""Decoders: ``log_probs, lengths -> [Hypothesis]``; ``contract`` says how those are called that read more."""

from asrlib.decoding.greedy import GreedyDecoder, Hypothesis
from asrlib.decoding.longform import LongForm

__all__ = ["GreedyDecoder", "Hypothesis", "LongForm"]
