"""The words of a hypothesis, and when they were heard."""

from dataclasses import dataclass

from asrlib.decoding.greedy import Hypothesis
from asrlib.text import CTCTextEncoder


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
