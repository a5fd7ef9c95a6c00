"""Where a text lies in time, by CTC's forced alignment."""

from collections.abc import Sequence

import numpy as np

from asrlib.compiled import compiled
from asrlib.text import BLANK


def align(log_probs: np.ndarray, tokens: Sequence[int]) -> list[int]:
    """The frames [U] where the most probable path that writes ``tokens`` [U] emits each of them.

    Viterbi over the labels with a blank before, between and after them, which may be left out
    except between equal labels (Graves et al. 2006). If ``log_probs``, float [n, V] with n ≥ 1, has
    too few frames for the labels, they are spread over those there are.
    """
    states = np.full(2 * len(tokens) + 1, BLANK)
    states[1::2] = tokens
    frames = _best_path(log_probs.take(states, axis=1), states)
    if frames is None:
        frames = np.linspace(0, len(log_probs) - 1, len(tokens)).astype(int)
    return frames.tolist()


@compiled
def _best_path(emissions, states):
    """The first frame of each label on the best path through ``states``; None if there is no path.

    Args:
        emissions: ln p of each state in each frame, float [n, 2U + 1].
        states: a blank, then each label and a blank after it, int64 [2U + 1].
    """
    scores, before = np.full(len(states), -np.inf), np.empty(len(states))
    scores[:2] = emissions[0, :2]
    back = np.zeros(emissions.shape, np.int8)
    for frame in range(1, len(emissions)):
        before[:] = scores
        for s in range(len(states)):
            for step in range(1, min(s, 2) + 1):
                if step == 2 and states[s] == states[s - 2]:  # no label may be left out
                    continue
                if before[s - step] > scores[s]:
                    scores[s], back[frame, s] = before[s - step], step
            scores[s] += emissions[frame, s]
    state = len(states) - 1
    if state > 0 and scores[state - 1] >= scores[state]:
        state -= 1
    if scores[state] == -np.inf:
        return None
    starts = np.zeros(len(states) // 2, np.int64)
    for frame in range(len(emissions) - 1, -1, -1):
        if state % 2:
            starts[state // 2] = frame  # the first of its frames is written last
        state -= back[frame, state]
    return starts
