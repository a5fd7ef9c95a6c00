"""Whether a speller reads an utterance from its beginning to its end: two numbers of its attention."""

import numpy as np

from asrlib.model.las import COVERED


def monotonicity(attention: np.ndarray) -> float:
    """Share of steps of attention [steps, T'] that look, most of all, at no earlier frame than the last.

    1 for speech that is read once; about a half where attention does not know where to look.
    """
    steps = np.diff(attention.argmax(axis=1))
    return float(np.mean(steps >= 0)) if len(steps) else 1.0


def coverage(attention: np.ndarray) -> float:
    """Share of the frames that got, over all steps, half of one step's attention or more.

    Near 0 where all steps look at the same frame. Silence is not covered, and should not be.
    """
    return float(np.mean(attention.sum(axis=0) > COVERED))
