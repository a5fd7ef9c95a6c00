"""Deep Speech 2: two strided 2-D convolutions, bidirectional recurrent layers, CTC.

Amodei et al., "Deep Speech 2: end-to-end speech recognition in English and Mandarin", ICML 2016.

Design choices, where this differs from the paper:

* Layer normalisation of each frame instead of batch normalisation: neither padding nor the rest of
  the batch can then reach an utterance, in training as well as in evaluation.
* Activations are masked before every convolution. The backward direction runs on utterances that
  were each reversed within their own length, so it starts at their own last frame; packed sequences
  do the same three times slower on a CPU.
* The last recurrent layer may run on several frames for each one before it (``upsample``). CTC needs
  a frame for each label and one between two equal ones; the other layers do not. (Several frames
  made by the head alone are worse: nothing tells the second what the first has written.)
* Each recurrent layer adds its two directions, as in the paper, and its input: deep stacks then
  train without a schedule of their own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asrlib.model.masking import conv_output_length, mask_time
from asrlib.model.onednn import in_float32_on_cpu


@dataclass(frozen=True)
class Size:
    """What the dial ``size`` stands for."""

    channels: int  # of both convolutions
    hidden: int  # recurrent units in each direction
    layers: int  # recurrent layers


# The paper's largest is 7 layers of 1,280 units on a much larger corpus.
SIZES = {
    "xxs": Size(channels=8, hidden=192, layers=2),
    "xs": Size(channels=16, hidden=256, layers=3),
    "s": Size(channels=32, hidden=512, layers=4),
    "m": Size(channels=32, hidden=800, layers=5),
    "l": Size(channels=32, hidden=1280, layers=7),
}
CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


class MaskedConv2d(nn.Module):
    """Convolution over (frequency, time), layer norm of each frame, clipped ReLU.

    ``kernel``, ``stride`` are (frequency, time); both axes are padded so that stride 1 keeps them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        in_bins: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
    ):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, self.padding, bias=False)
        self.out_bins = conv_output_length(in_bins, kernel[0], stride[0], self.padding[0])
        self.norm = nn.LayerNorm(out_channels * self.out_bins)
        self.activation = nn.Hardtanh(0.0, 20.0)

    def output_length(self, lengths: Tensor) -> Tensor:
        return conv_output_length(lengths, self.kernel[1], self.stride[1], self.padding[1])

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, F, T], frames [B] → [B, C', F', T'], frames [B]."""
        x = mask_time(x, lengths)
        # for a large kernel over one channel oneDNN's bfloat16 copies all that the kernel sees at each place:
        # a gigabyte, and ten times as long
        x = in_float32_on_cpu(self.conv, x) if self.conv.in_channels == 1 else self.conv(x)
        batch_size, channels, bins, frames = x.shape
        x = self.norm(x.flatten(1, 2).transpose(1, 2)).transpose(1, 2)
        return self.activation(x).view(batch_size, channels, bins, frames), self.output_length(
            lengths
        )


def reverse_rows(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverses the first ``lengths[b]`` frames of each row of [B, T, D]; padding stays behind them."""
    frames = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths.to(x.device, non_blocking=True).unsqueeze(1) - 1 - frames
    index = torch.where(mirrored >= 0, mirrored, frames)
    return x.gather(1, index.unsqueeze(2).expand_as(x))


class BidirectionalLayer(nn.Module):
    """Layer norm, a forward and a backward GRU or LSTM whose outputs are added, dropout."""

    def __init__(self, cell: str, in_features: int, hidden: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(in_features)
        self.forward_rnn = CELLS[cell](in_features, hidden, batch_first=True)
        self.backward_rnn = CELLS[cell](in_features, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.residual = in_features == hidden

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """[B, T', D], frames [B] → [B, T', hidden]; what stands beyond a length has no meaning."""
        normed = self.norm(x)
        backward = self._recur(self.backward_rnn, reverse_rows(normed, lengths))
        y = self._recur(self.forward_rnn, normed) + reverse_rows(backward, lengths)
        y = self.dropout(y)
        return x + y if self.residual else y

    @staticmethod
    def _recur(rnn: nn.GRU | nn.LSTM, x: Tensor) -> Tensor:
        # oneDNN has an LSTM in bfloat16 for processors with AVX-512 alone
        return (in_float32_on_cpu(rnn, x) if isinstance(rnn, nn.LSTM) else rnn(x))[0]


class DeepSpeech2(nn.Module):
    """Deep Speech 2 with CTC labels.

    Args:
        n_mels: mel bins F of the input.
        vocabulary_size: labels V.
        size: one of ``SIZES``.
        cell: "gru" or "lstm".
        time_stride: feature frames of 10 ms per recurrent frame, 2 (the paper's) or 4 (half the cost).
        upsample: frames of the last recurrent layer, and so encoder frames T', for each frame of
            the layers before, at most ``time_stride``. With stride 4 and without upsampling, fast
            speech loses double letters and spaces.
        dropout: after each recurrent layer.

    Raises:
        ValueError: an unknown size, cell, stride or upsampling.
    """

    def __init__(
        self,
        n_mels: int,
        vocabulary_size: int,
        size: str = "xs",
        cell: str = "gru",
        time_stride: int = 2,
        upsample: int = 1,
        dropout: float = 0.1,
    ):
        super().__init__()
        if size not in SIZES or cell not in CELLS or time_stride not in (2, 4):
            raise ValueError(
                f"DeepSpeech2 has sizes {list(SIZES)}, cells {list(CELLS)} and time strides 2 and 4, "
                f"not {size!r}, {cell!r}, {time_stride!r}"
            )
        if upsample not in (1, 2, 4) or upsample > time_stride:
            raise ValueError(
                f"DeepSpeech2 upsamples by 1, 2 or 4, at most by time_stride, not by {upsample!r}"
            )
        self.stride, self.upsample = time_stride // upsample, upsample
        channels, hidden, layers = (
            getattr(SIZES[size], f) for f in ("channels", "hidden", "layers")
        )
        first = MaskedConv2d(1, channels, n_mels, kernel=(41, 11), stride=(2, 2))
        second = MaskedConv2d(
            channels, channels, first.out_bins, kernel=(21, 11), stride=(2, time_stride // 2)
        )
        self.convolutions = nn.ModuleList([first, second])
        widths = [channels * second.out_bins] + [hidden] * layers
        self.recurrent = nn.ModuleList(
            BidirectionalLayer(cell, width, hidden, dropout) for width in widths[:-1]
        )
        self.expand = (
            nn.Linear(widths[-2], upsample * widths[-2]) if upsample > 1 else nn.Identity()
        )
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, vocabulary_size)

    def output_length(self, lengths: Tensor) -> Tensor:
        """Encoder frames T' of feature frames T."""
        for convolution in self.convolutions:
            lengths = convolution.output_length(lengths)
        return lengths * self.upsample

    def forward(self, spectrogram: Tensor, spectrogram_length: Tensor) -> dict[str, Tensor]:
        """float [B, F, T] and frames [B] → ``log_probs`` float32 [B, T', V], ``log_probs_length`` [B],
        and ``encoded`` [B, T', D]."""
        x, lengths = spectrogram.unsqueeze(1), spectrogram_length
        for convolution in self.convolutions:
            x, lengths = convolution(x, lengths)
        x = x.flatten(1, 2).transpose(1, 2)
        for layer in self.recurrent[:-1]:
            x = layer(x, lengths)
        x = self.expand(x).unflatten(2, (self.upsample, -1)).flatten(1, 2)
        lengths = lengths * self.upsample
        x = self.recurrent[-1](x, lengths)
        encoded = self.norm(x)
        log_probs = self.head(encoded).float().log_softmax(dim=-1)
        return {"log_probs": log_probs, "log_probs_length": lengths, "encoded": encoded}
