"""Recordings of any length, read in overlapping windows and joined without a seam.

Windows overlap, and each cut is made inside an overlap where the recogniser itself hears a gap
between words: in the longest run of blanks that holds a space or ends where a piece starts a word.
Both windows have context on their side of the cut, so no word is halved, doubled or lost. Memory
does not grow with the recording.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from asrlib.data.audio import SAMPLE_RATE, AudioError
from asrlib.decoding.contract import LENGTH, Decoder, decode_one, read, reads
from asrlib.decoding.greedy import Hypothesis
from asrlib.model import AcousticModel
from asrlib.text import BLANK, CTCTextEncoder

WINDOW_SECONDS = 30
OVERLAP_SECONDS = 8
MARGIN_SECONDS = 2  # at each end of an overlap, where a window lacks context and is not cut
WINDOWS_AT_ONCE = 4


class LongForm:
    """Decodes a recording that comes in pieces.

    Args:
        model: in evaluation mode.
        decoder: of what the model says, frame by frame.
        text_encoder: knows which labels stand between words.
    """

    def __init__(
        self,
        model: AcousticModel,
        decoder: Decoder,
        text_encoder: CTCTextEncoder,
    ):
        self.model, self.decoder, self.text_encoder = model, decoder, text_encoder

    def __call__(self, pieces: Iterable[np.ndarray]) -> Hypothesis:
        """Hypothesis of float32 [n] pieces at 16 kHz; frames count from the recording's start.

        Raises:
            AudioError: no samples.
        """
        parts: list[Hypothesis] = []
        for offset, said in self._cut(windows(pieces)):
            part = decode_one(self.decoder, said)
            frames = [offset + frame for frame in part.frames]
            parts.append(Hypothesis(part.text, part.score, part.tokens, frames))
        return Hypothesis(
            text=" ".join(part.text for part in parts if part.text),
            score=sum(part.score for part in parts),
            tokens=[token for part in parts for token in part.tokens],
            frames=[frame for part in parts for frame in part.frames],
        )

    def _cut(self, audio: Iterator[np.ndarray]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """(first frame, what the model says [n, ...]) of parts that together cover all windows once."""
        rate = SAMPLE_RATE / self.model.samples_per_frame
        steps = (
            WINDOW_SECONDS - OVERLAP_SECONDS
        ) * rate  # of one window, which may be no whole frames
        number, start, previous = 0, 0, None
        for said in self._said(audio):
            if previous is not None:
                step = round((number + 1) * steps) - round(number * steps)
                first = round(step + MARGIN_SECONDS * rate)
                last = round(step + (OVERLAP_SECONDS - MARGIN_SECONDS) * rate)
                cut = first + self._gap(previous["log_probs"][first:last])
                yield (
                    round(number * steps) + start,
                    {name: x[start:cut] for name, x in previous.items()},
                )
                number, start = number + 1, cut - step
            previous = said
        if previous is not None:
            yield round(number * steps) + start, {name: x[start:] for name, x in previous.items()}

    @torch.no_grad()
    def _said(self, audio: Iterator[np.ndarray]) -> Iterator[dict[str, Tensor]]:
        """``log_probs`` [T', V] and whatever else the decoder reads [T', ...], of each window."""
        names = {"log_probs", *reads(self.decoder)} - {LENGTH}
        while group := list(map(torch.from_numpy, islice(audio, WINDOWS_AT_ONCE))):
            lengths = torch.tensor([len(w) for w in group])
            padded = torch.nn.utils.rnn.pad_sequence(group, batch_first=True)
            output = self.model(padded.to(self.model.device), lengths)
            said = dict(zip(names, read(output, names), strict=True))
            for row, length in enumerate(output[LENGTH].tolist()):
                yield {name: tensor[row, :length] for name, tensor in said.items()}

    def _gap(self, log_probs: Tensor) -> int:
        """The frame of [n, V] in the middle of the widest gap between words (else within one)."""
        labels = log_probs.argmax(dim=-1).tolist()
        starts = self.text_encoder.word_starts
        best = (False, 0, 0)
        for start, end in _runs([label in self._silent for label in labels]):
            holds_space = any(label != BLANK for label in labels[start:end])
            between_words = holds_space or (end < len(labels) and labels[end] in starts)
            best = max(best, (between_words, end - start, (start + end) // 2))
        return best[2]

    @property
    def _silent(self) -> set[int]:
        return {BLANK, *self.text_encoder.separators}


def windows(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Overlapping windows float32 [n] of audio that comes in pieces; the last takes what is left.

    Raises:
        AudioError: the pieces are empty.
    """
    window = WINDOW_SECONDS * SAMPLE_RATE
    step = (WINDOW_SECONDS - OVERLAP_SECONDS) * SAMPLE_RATE
    buffer = np.zeros(0, dtype=np.float32)
    for piece in pieces:
        buffer = np.concatenate([buffer, piece])
        while len(buffer) > window:
            yield buffer[:window]
            buffer = buffer[step:]
    if not len(buffer):
        raise AudioError("no samples")
    yield buffer


def _runs(flags: list[bool]) -> Iterator[tuple[int, int]]:
    """[start, end) of every run of true flags."""
    start = None
    for i, flag in enumerate([*flags, False]):
        if flag and start is None:
            start = i
        elif not flag and start is not None:
            yield start, i
            start = None
