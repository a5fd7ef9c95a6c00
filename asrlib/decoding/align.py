"""Where a text lies in time: CTC's forced alignment, and the words of a hypothesis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asrlib.decoding.greedy import Hypothesis
from asrlib.text import BLANK, CTCTextEncoder


@dataclass(frozen=True)
class Word:
    """A word and when it was heard."""

    text: str
    start: float  # seconds at which the first label that writes a letter of it starts
    end: float  # one frame after the start of its last label: CTC does not say how long that is


def words_of(
    hypothesis: Hypothesis, text_encoder: CTCTextEncoder, seconds_per_frame: float
) -> list[Word]:
    """The words of any decoder's text, dated by the labels that write their letters.

    Counting letters needs no separators: where LongForm joins two windows there may be none.
    """
    pieces = (
        (text_encoder.decode([token]).strip(), frame)
        for token, frame in zip(hypothesis.tokens, hypothesis.frames, strict=True)
    )
    written = ((len(piece), frame) for piece, frame in pieces if piece)
    words = []
    for word in hypothesis.text.split():
        letters, frames = 0, []
        while letters < len(word):
            more, frame = next(written)
            letters += more
            frames.append(frame)
        times = (round(frame * seconds_per_frame, 3) for frame in (frames[0], frames[-1] + 1))
        words.append(Word(word, *times))
    return words


def align(log_probs: np.ndarray, tokens: Sequence[int]) -> list[int]:
    """The frames [U] where the most probable path that writes ``tokens`` [U] emits each of them.

    Viterbi over the labels with a blank before, between and after them, which may be left out
    except between equal labels (Graves et al. 2006). If ``log_probs``, float [n, V] with n ≥ 1, has
    too few frames for the labels, they are spread over those there are.
    """
    frames, states = len(log_probs), np.full(2 * len(tokens) + 1, BLANK)
    states[1::2] = tokens
    emissions = log_probs[:, states]
    skips = np.zeros(len(states), bool)
    skips[2:] = states[2:] != states[:-2]  # so from no blank to the next
    scores = np.full(len(states), -np.inf)
    scores[:2] = emissions[0, :2]
    back = np.zeros((frames, len(states)), np.int64)
    for frame in range(1, frames):
        ways = np.full((3, len(states)), -np.inf)  # from this state, the one before, two before
        ways[0], ways[1, 1:] = scores, scores[:-1]
        ways[2, skips] = scores[np.flatnonzero(skips) - 2]
        back[frame] = ways.argmax(axis=0)
        scores = ways.max(axis=0) + emissions[frame]
    state = len(states) - 2 + int(scores[-1] > scores[-2])
    if scores[state] == -np.inf:
        return np.linspace(0, frames - 1, len(tokens)).astype(int).tolist()
    starts = [0] * len(tokens)
    for frame in range(frames - 1, -1, -1):
        if state % 2:
            starts[state // 2] = frame  # the first of its frames is written last
        state -= int(back[frame, state])
    return starts
