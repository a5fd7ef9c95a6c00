"""A trained recogniser in four lines.

>>> from asrlib import Recognizer                          # doctest: +SKIP
>>> recognizer = Recognizer.from_pretrained("outputs/demo")  # doctest: +SKIP
>>> recognizer.transcribe("a.flac").text                   # doctest: +SKIP
'the doctor wants seven apples'
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from asrlib.build import build_decoder, choose_device
from asrlib.checkpoint import find_checkpoint, load_acoustic_model
from asrlib.data.audio import SAMPLE_RATE, read_audio, stream_audio, to_mono_16k
from asrlib.decoding import GreedyDecoder, Hypothesis, LongForm
from asrlib.decoding.contract import Decoder, decode
from asrlib.decoding.longform import WINDOW_SECONDS
from asrlib.decoding.tuned import chosen_decoder
from asrlib.decoding.words import Word, words_of
from asrlib.model import AcousticModel
from asrlib.precision import DTYPES, choose_precision
from asrlib.text import CTCTextEncoder

Audio = str | Path | np.ndarray


@dataclass(frozen=True)
class Transcript:
    """What was heard in one recording."""

    text: str
    words: list[Word]  # of the text, with their times
    token_times: list[float]  # seconds at which each label of the hypothesis starts
    hypothesis: Hypothesis


class Recognizer:
    """An acoustic model with its text encoder and a decoder.

    Args:
        model: waveform → ``log_probs``.
        decoder: greedy CTC if not given.
    """

    def __init__(
        self, model: AcousticModel, text_encoder: CTCTextEncoder, decoder: Decoder | None = None
    ):
        self.model, self.text_encoder = model.eval(), text_encoder
        self.decoder = decoder or GreedyDecoder(text_encoder)
        self.long_form = LongForm(model, self.decoder, text_encoder)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: str = "auto",
        decoder: Mapping | None = None,
        raw: bool = False,
        precision: str = "fp32",
    ) -> Recognizer:
        """The recogniser in a checkpoint's folder, or the best one in a run's.

        Args:
            decoder: a section of the configuration, such as {"name": "tuned"} for what
                ``asrlib.decoding.tune`` found best; greedy if not given.
            raw: take the weights that were in training, instead of their running average.
            precision: in which the encoder computes, as of ``asrlib.precision``: "bf16" is faster where the
                device has it, "auto" the fastest that it has. Numbers are published in "fp32".

        Raises:
            FileNotFoundError: no checkpoint there, none that was tuned, or no raw weights.
            ValueError: a decoder by attention, and a model of CTC alone; or no such precision.
            RuntimeError: the device cannot compute in it.
        """
        place = choose_device(device)
        chosen = choose_precision(precision, place)
        model, text_encoder, _ = load_acoustic_model(path, place, raw)
        model.evaluates_in = None if chosen == "fp32" else DTYPES[chosen]
        decoder = decoder and chosen_decoder(decoder, find_checkpoint(path))
        decoder = decoder and build_decoder(decoder, text_encoder, model.speller)
        return cls(model, text_encoder, decoder)

    def transcribe(
        self, audio: Audio | Sequence[Audio], sample_rate: int = SAMPLE_RATE, batch_size: int = 16
    ) -> Transcript | list[Transcript]:
        """Transcript of a file or of samples [n] or [n, channels]; a list of them for a list.

        Args:
            sample_rate: of samples, in hertz; files know their own.
            batch_size: how many recordings are decoded together; those of more than 30 seconds
                are read in windows, one at a time.

        Raises:
            AudioError: a recording that cannot be used, with the reason.
        """
        if isinstance(audio, (str, Path, np.ndarray)):
            return self.transcribe([audio], sample_rate)[0]
        transcripts = []
        for start in range(0, len(audio), batch_size):
            transcripts += self._transcribe_batch(audio[start : start + batch_size], sample_rate)
        return transcripts

    def _transcribe_batch(self, recordings: Sequence[Audio], rate: int) -> list[Transcript]:
        hypotheses: dict[int, Hypothesis] = {}
        short: dict[int, np.ndarray] = {}
        for i, recording in enumerate(recordings):
            if isinstance(recording, np.ndarray):
                samples = to_mono_16k(recording, rate)
                pieces = [samples]
                if len(samples) > WINDOW_SECONDS * SAMPLE_RATE:
                    samples = None
            else:
                samples = read_audio(recording, WINDOW_SECONDS)
                pieces = stream_audio(recording)
            if samples is None:
                hypotheses[i] = self.long_form(pieces)
            else:
                short[i] = samples
        if short:
            audio = [torch.from_numpy(samples) for samples in short.values()]
            lengths = torch.tensor([len(samples) for samples in audio])
            with torch.no_grad():
                padded = pad_sequence(audio, batch_first=True).to(self.model.device)
                output = self.model(padded, lengths)
            hypotheses |= zip(short, decode(self.decoder, output), strict=True)
        return [self._transcript(hypotheses[i]) for i in range(len(recordings))]

    def _transcript(self, hypothesis: Hypothesis) -> Transcript:
        seconds = self.model.samples_per_frame / SAMPLE_RATE
        times = [round(frame * seconds, 3) for frame in hypothesis.frames]
        words = words_of(hypothesis, self.text_encoder, seconds)
        return Transcript(hypothesis.text, words, times, hypothesis)
