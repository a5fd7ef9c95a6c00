"""Augmentations of the log-mel spectrogram, on the device, a batch at a time.

The draws are a few integers an utterance, made on the CPU from (seed, epoch, utterance id, name):
what an utterance loses does not depend on the batch or the rank that it fell into.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from asrlib.randomness import generator


class SpectrogramAugmentation(nn.Module):
    """Changes [B, F, T] with frames [B], and one generator an utterance; lengths stay.

    Attributes:
        moves_time: where frames of one view have to stand for the same moments as those of another,
            as in CR-CTC, all views must be changed alike: they get the same draws.
    """

    moves_time = False

    def forward(
        self, spectrogram: Tensor, lengths: Tensor, rngs: Sequence[np.random.Generator]
    ) -> Tensor:
        raise NotImplementedError


class TimeWarp(SpectrogramAugmentation):
    """Moves one moment of an utterance, and stretches what is before and after it to fit.

    Park et al., "SpecAugment", Interspeech 2019: a frame is drawn, and by how much it moves, uniform
    in [-width, width]. Frames are interpolated linearly, in place of the paper's spline of the plane.

    Args:
        width: frames of 10 ms (W in the paper). Both sides keep at least ``2 * width`` frames before
            they move, so none becomes more than twice as fast: an utterance of fewer than
            ``4 * width`` frames is warped by a quarter of its length.
        p: the probability of each utterance to be warped.
    """

    moves_time = True

    def __init__(self, width: int = 80, p: float = 1.0):
        super().__init__()
        if width < 1 or not 0.0 <= p <= 1.0:
            raise ValueError(f"TimeWarp: width={width} is less than 1, or p={p} no probability")
        self.width, self.p = width, p

    def forward(self, spectrogram, lengths, rngs):
        n_frames = spectrogram.shape[-1]
        source = np.tile(np.arange(n_frames, dtype=np.float32), (len(rngs), 1))  # [B, T]
        for row, length, rng in zip(source, lengths.tolist(), rngs, strict=True):
            width = min(self.width, (length - 1) // 4)
            if rng.random() >= self.p:
                continue
            old = int(rng.integers(2 * width, length - 1 - 2 * width, endpoint=True))
            new = old + int(rng.integers(-width, width, endpoint=True))
            row[:length] = np.interp(np.arange(length), (0, new, length - 1), (0, old, length - 1))
        before = np.floor(source)
        index, share = (
            torch.from_numpy(x).to(spectrogram.device, non_blocking=True).unsqueeze(1)
            for x in (before.astype(np.int64), source - before)
        )
        ends = [
            spectrogram.gather(2, moment.expand_as(spectrogram))
            for moment in (index, (index + 1).clamp(max=n_frames - 1))
        ]
        return torch.lerp(*ends, share)


class SpecAugment(SpectrogramAugmentation):
    """Masks bands of mel bins and stretches of frames with 0, the mean of normalised features.

    Park et al., "SpecAugment: a simple data augmentation method for automatic speech recognition",
    Interspeech 2019; its time warping is ``TimeWarp``. Widths are uniform in [0, maximum]. Adaptive
    masks, whose number follows the length, are from Park et al., "SpecAugment on large scale
    datasets", ICASSP 2020: there time_masks=20, time_mask_rate=0.04, time_fraction=0.04.

    Args:
        frequency_masks, frequency_width: how many bands, and the widest (mel bins).
        time_masks, time_width: how many stretches, and the longest (frames of 10 ms).
        time_fraction: no stretch is longer than this share of the utterance (p in the first paper,
            p_S in the second).
        time_mask_rate: no more stretches than this for each frame of the utterance (p_M in the
            second paper); null for always ``time_masks``.
    """

    def __init__(
        self,
        frequency_masks: int = 2,
        frequency_width: int = 27,
        time_masks: int = 2,
        time_width: int = 50,
        time_fraction: float = 0.2,
        time_mask_rate: float | None = None,
    ):
        super().__init__()
        self.frequency_masks, self.frequency_width = frequency_masks, frequency_width
        self.time_masks, self.time_width = time_masks, time_width
        self.time_fraction, self.time_mask_rate = time_fraction, time_mask_rate
        counts = "frequency_masks", "frequency_width", "time_masks", "time_width"
        for name in (*counts, "time_fraction", "time_mask_rate"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ValueError(f"SpecAugment: {name}={value} is negative")
        if time_fraction > 1:
            raise ValueError(
                f"SpecAugment: time_fraction={time_fraction} is more than an utterance"
            )

    def forward(self, spectrogram, lengths, rngs):
        batch_size, n_mels, n_frames = spectrogram.shape
        bands = np.zeros((batch_size, n_mels, 1), dtype=bool)
        stretches = np.zeros((batch_size, 1, n_frames), dtype=bool)
        for i, (length, rng) in enumerate(zip(lengths.tolist(), rngs, strict=True)):
            widest = min(self.frequency_width, n_mels)
            for start, end in _intervals(rng, self.frequency_masks, n_mels, widest):
                bands[i, start:end] = True
            longest = min(self.time_width, int(self.time_fraction * length))
            for start, end in _intervals(rng, self._time_masks(length), length, longest):
                stretches[i, :, start:end] = True
        bands, stretches = (
            torch.from_numpy(m).to(spectrogram.device, non_blocking=True)
            for m in (bands, stretches)
        )
        return spectrogram.masked_fill(bands | stretches, 0.0)

    def _time_masks(self, length: int) -> int:
        if self.time_mask_rate is None:
            return self.time_masks
        return min(self.time_masks, int(self.time_mask_rate * length))


def _intervals(
    rng: np.random.Generator, count: int, size: int, longest: int
) -> Iterator[tuple[int, int]]:
    """Starts and ends, all drawn at once: one by one, a GPU would wait for many masks."""
    widths = rng.integers(longest + 1, size=count)
    starts = rng.integers(size - widths + 1)
    return zip(starts.tolist(), (starts + widths).tolist(), strict=True)


class SpectrogramAugmentations(nn.Module):
    """A named sequence of spectrogram augmentations, applied in order.

    Args:
        augmentations, seed, from_epoch: as for ``WaveformAugmentations``.
    """

    def __init__(
        self,
        augmentations: Mapping[str, SpectrogramAugmentation],
        seed: int,
        from_epoch: int = 0,
    ):
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
        """[B, F, T] and frames [B] → [B, F, T].

        Each ``view`` of an utterance has draws of its own, but for what moves frames in time.
        """
        if epoch < self.from_epoch:
            return spectrogram
        for name, augmentation in self.augmentations.items():
            # the only view of most trainings is no part of the key
            key = (name, view) if view and not augmentation.moves_time else (name,)
            rngs = [generator(self.seed, epoch, id, *key) for id in utterance_ids]
            spectrogram = augmentation(spectrogram, lengths, rngs)
        return spectrogram
