"""Bootstrap confidence intervals for corpus WER, resampling whole speakers.

The errors of one speaker's utterances are correlated, so utterances are not the unit of chance:
speakers are (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
evaluation", ICASSP 2004, with their "block" being a speaker). Utterances without a speaker are
blocks of their own.
"""

from collections.abc import Sequence

import numpy as np

from asrlib.metrics.error_rate import ScoredUtterance
from asrlib.randomness import generator


def blocks(utterances: Sequence[ScoredUtterance]) -> np.ndarray:
    """Edits and reference words summed by speaker: int64 [number of speakers, 2]."""
    sums: dict[str, np.ndarray] = {}
    for number, u in enumerate(utterances):
        key = f"speaker {u.speaker}" if u.speaker is not None else f"utterance {number}"
        sums.setdefault(key, np.zeros(2, dtype=np.int64))[:] += (u.words.total, u.words.reference)
    return np.array([sums[key] for key in sorted(sums)], dtype=np.int64).reshape(-1, 2)


def wer_interval(
    utterances: Sequence[ScoredUtterance],
    confidence: float = 0.95,
    replicates: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the corpus WER, in percent.

    Raises:
        ValueError: no reference words at all, or a single speaker, who cannot show any spread.
    """
    errors_and_words = blocks(utterances)
    n = len(errors_and_words)
    if n < 2:
        raise ValueError("an interval needs at least two speakers")
    if errors_and_words[:, 1].sum() == 0:
        raise ValueError("an interval needs reference words, and there are none")
    draws = generator(seed, "bootstrap").multinomial(n, np.full(n, 1 / n), size=replicates)
    errors, words = (draws @ errors_and_words).T
    rates = 100.0 * errors[words > 0] / words[words > 0]
    tail = 50.0 * (1 - confidence)
    low, high = np.percentile(rates, [tail, 100 - tail])
    return float(low), float(high)
