"""The listener of Listen, Attend and Spell: a pyramid of bidirectional LSTMs.

Chan et al., "Listen, attend and spell", ICASSP 2016. Each layer above the first reads two frames of the
one below as one, so three of them leave an eighth of the frames.

Layers are those of DeepSpeech2 (layer norm, two directions that are added, dropout), so sizes are of one
direction.
"""

import torch
from torch import Tensor, nn

from asrlib.model.deepspeech2 import BidirectionalLayer
from asrlib.model.masking import mask_time

# units of each direction; the paper's are 256
SIZES = {"xxs": 64, "xs": 192, "s": 256, "m": 512, "l": 768}


class PyramidalLSTM(nn.Module):
    """A pyramid of bidirectional LSTMs with CTC labels.

    Args:
        n_mels: mel bins F of the input.
        vocabulary_size: labels V.
        size: one of ``SIZES``.
        halvings: layers above the first, 1 to 3, each of which halves the frames. With 3, as in the
            paper, they are too few for CTC of characters; ``loss=attention`` does not need as many.
        dropout: after each layer.

    Raises:
        ValueError: an unknown size or number.
    """

    def __init__(
        self,
        n_mels: int,
        vocabulary_size: int,
        size: str = "s",
        halvings: int = 3,
        dropout: float = 0.1,
    ):
        super().__init__()
        if size not in SIZES or halvings not in (1, 2, 3):
            raise ValueError(
                f"PyramidalLSTM has sizes {list(SIZES)} and 1 to 3 halvings, "
                f"not {size!r}, {halvings!r}"
            )
        self.stride, width = 2**halvings, SIZES[size]
        self.layers = nn.ModuleList(
            BidirectionalLayer("lstm", n_mels if i == 0 else 2 * width, width, dropout)
            for i in range(1 + halvings)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary_size)

    def output_length(self, lengths: Tensor) -> Tensor:
        """Encoder frames T' of feature frames T."""
        return -(-lengths // self.stride)

    def forward(self, spectrogram: Tensor, spectrogram_length: Tensor) -> dict[str, Tensor]:
        """float [B, F, T] and frames [B] → ``log_probs`` float32 [B, T', V], ``log_probs_length`` [B],
        and ``encoded`` [B, T', D]."""
        x, lengths = spectrogram.transpose(1, 2), spectrogram_length
        for number, layer in enumerate(self.layers):
            if number > 0:
                x, lengths = pairs_of_frames(x, lengths), -(-lengths // 2)
            x = layer(x, lengths)
        encoded = self.norm(x)
        log_probs = self.head(encoded).float().log_softmax(dim=-1)
        return {"log_probs": log_probs, "log_probs_length": lengths, "encoded": encoded}


def pairs_of_frames(x: Tensor, lengths: Tensor) -> Tensor:
    """[B, T, D] → [B, ⌈T / 2⌉, 2D]; the last of an odd number of frames is paired with zeros."""
    x = mask_time(x.transpose(1, 2), lengths).transpose(1, 2)
    x = torch.nn.functional.pad(x, (0, 0, 0, x.shape[1] % 2))
    return x.unflatten(1, (-1, 2)).flatten(2)
