"""The whole acoustic model: waveform → features → encoder, in one module."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrlib.model.features import HOP, LogMel
from asrlib.text import BLANK

FRAMES = 32  # of features, whose number is padded to a multiple of it
SILENT = 1e-3  # what normalised features reach where nothing is above the floor: rounding
IMPOSSIBLE = -100.0  # log probability

Augment = Callable[[Tensor, Tensor], Tensor]


class AcousticModel(nn.Module):
    """Features and an encoder that makes label probabilities of them.

    Args:
        features: waveform [B, S] → spectrogram [B, F, T].
        encoder: spectrogram → dict with ``log_probs`` [B, T', V] and ``log_probs_length`` [B]; its
            ``stride`` is the number of feature frames per encoder frame. One with a ``speller`` takes
            the labels too, where they are known.

    Attributes:
        evaluates_in: the format in which the encoder computes in evaluation; None, the default, leaves
            that to whoever calls, as it is in training.
    """

    def __init__(self, features: LogMel, encoder: nn.Module):
        super().__init__()
        self.features, self.encoder = features, encoder
        self.evaluates_in: torch.dtype | None = None

    def output_length(self, audio_length: Tensor) -> Tensor:
        """Encoder frames T' of a number of samples S."""
        return self.encoder.output_length(self.features.output_length(audio_length))

    @property
    def samples_per_frame(self) -> int:
        """Samples from one encoder frame to the next."""
        return HOP * self.encoder.stride

    @property
    def speller(self) -> nn.Module | None:
        """What decoders by attention spell with; None if the encoder has CTC alone."""
        return getattr(self.encoder, "speller", None)

    def forward(
        self,
        audio: Tensor,
        audio_length: Tensor,
        *augment: Augment,
        labels: Mapping[str, Tensor] | None = None,
    ) -> dict:
        """float32 [B, S] and samples int64 [B] (on the CPU) → the encoder's dict and ``spectrogram``.

        Each ``augment`` changes the spectrogram, given it and its lengths, before the encoder sees it.
        Of N of them, each makes a view of its own, and all outputs have N·B rows, view after view.
        ``labels`` may have ``text_encoded`` int [B, U], for what spells texts that are known.

        The encoder sees more padding, so that batches have few shapes: oneDNN compiles its kernels for
        each of them, and cuDNN plans anew, about 50 ms a convolution and direction: both may take longer
        than to compute. So T' is that of a multiple of ``FRAMES``, and may be above all of
        ``log_probs_length``.

        In evaluation an utterance of digital silence is all blank: no training has such, and what a model
        makes of it is a guess.
        """
        spectrogram, lengths = self.features(audio, audio_length)
        if augment:
            spectrogram = torch.cat([change(spectrogram, lengths) for change in augment])
            lengths = lengths.repeat(len(augment))
        seen = {"spectrogram": spectrogram, "spectrogram_length": lengths}
        known = []
        if self.speller is not None and labels is not None and "text_encoded" in labels:
            text = labels["text_encoded"].to(spectrogram.device, non_blocking=True)
            known = [text.repeat(max(len(augment), 1), 1)]
        spectrogram = F.pad(spectrogram, (0, -spectrogram.shape[-1] % FRAMES))
        with self._format():
            heard = self.encoder(spectrogram, lengths, *known)
        for name in {"log_probs", "phone_log_probs"} & heard.keys() if not self.training else ():
            heard[name] = blank_if_silent(heard[name], spectrogram)
        return seen | heard

    def _format(self) -> AbstractContextManager:
        if self.training or self.evaluates_in is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.evaluates_in)

    @property
    def device(self):
        return next(self.parameters()).device

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def blank_if_silent(log_probs: Tensor, spectrogram: Tensor) -> Tensor:
    """[B, T', V], certain of the blank where normalised features [B, F, T] are of digital silence."""
    silent = spectrogram.abs().amax(dim=(1, 2)) < SILENT
    blank = log_probs.new_full(log_probs.shape[-1:], IMPOSSIBLE)
    blank[BLANK] = 0.0
    return torch.where(silent.view(-1, 1, 1), blank, log_probs)
