"""Augmentations of the log-mel spectrogram, on the device, a batch at a time.

The draws are a few integers an utterance, made on the CPU from (seed, epoch, utterance id, name):
what an utterance loses does not depend on the batch or the rank that it fell into.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from asrlib.randomness import generator


class SpecAugment(nn.Module):
    """Masks bands of mel bins and stretches of frames with 0, the mean of normalised features.

    Park et al., "SpecAugment: a simple data augmentation method for automatic speech recognition",
    Interspeech 2019, without time warping. Widths are uniform in [0, maximum].

    Args:
        frequency_masks, frequency_width: how many bands, and the widest (mel bins).
        time_masks, time_width: how many stretches, and the longest (frames of 10 ms).
        time_fraction: no stretch is longer than this share of the utterance (p in the paper).
    """

    def __init__(
        self,
        frequency_masks: int = 2,
        frequency_width: int = 27,
        time_masks: int = 2,
        time_width: int = 50,
        time_fraction: float = 0.2,
    ):
        super().__init__()
        self.frequency_masks, self.frequency_width = frequency_masks, frequency_width
        self.time_masks, self.time_width = time_masks, time_width
        self.time_fraction = time_fraction

    def forward(
        self, spectrogram: Tensor, lengths: Tensor, rngs: Sequence[np.random.Generator]
    ) -> Tensor:
        """[B, F, T] and frames [B] → masked [B, F, T]; one generator an utterance."""
        batch_size, n_mels, n_frames = spectrogram.shape
        bands = np.zeros((batch_size, n_mels, 1), dtype=bool)
        stretches = np.zeros((batch_size, 1, n_frames), dtype=bool)
        for i, (length, rng) in enumerate(zip(lengths.tolist(), rngs, strict=True)):
            for _ in range(self.frequency_masks):
                start, end = _interval(rng, n_mels, min(self.frequency_width, n_mels))
                bands[i, start:end] = True
            longest = min(self.time_width, int(self.time_fraction * length))
            for _ in range(self.time_masks):
                start, end = _interval(rng, length, longest)
                stretches[i, :, start:end] = True
        bands, stretches = (
            torch.from_numpy(m).to(spectrogram.device, non_blocking=True)
            for m in (bands, stretches)
        )
        return spectrogram.masked_fill(bands | stretches, 0.0)


def _interval(rng: np.random.Generator, size: int, longest: int) -> tuple[int, int]:
    width = int(rng.integers(longest + 1))
    start = int(rng.integers(size - width + 1))
    return start, start + width


class SpectrogramAugmentations(nn.Module):
    """A named sequence of spectrogram augmentations, applied in order.

    Args:
        augmentations, seed, from_epoch: as for ``WaveformAugmentations``.
    """

    def __init__(self, augmentations: Mapping[str, nn.Module], seed: int, from_epoch: int = 0):
        super().__init__()
        self.augmentations, self.seed = nn.ModuleDict(augmentations), seed
        self.from_epoch = from_epoch

    def forward(
        self,
        spectrogram: Tensor,
        lengths: Tensor,
        epoch: int,
        utterance_ids: Sequence[str],
        view: int = 0,
    ) -> Tensor:
        """[B, F, T] and frames [B] → [B, F, T]; each ``view`` of an utterance has draws of its own."""
        if epoch < self.from_epoch:
            return spectrogram
        for name, augmentation in self.augmentations.items():
            # the only view of most trainings is no part of the key
            key = (name, view) if view else (name,)
            rngs = [generator(self.seed, epoch, id, *key) for id in utterance_ids]
            spectrogram = augmentation(spectrogram, lengths, rngs)
        return spectrogram
