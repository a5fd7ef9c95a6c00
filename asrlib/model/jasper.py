"""Jasper and QuartzNet: deep stacks of one-dimensional convolutions with CTC labels.

Li et al., "Jasper: an end-to-end convolutional neural acoustic model", Interspeech 2019.
Kriman et al., "QuartzNet: deep automatic speech recognition with 1D time-channel separable
convolutions", ICASSP 2020.

They are one family. A strided prologue is followed by B blocks of R repeats of (convolution, batch
norm, ReLU, dropout) and by an epilogue: a dilated convolution, a wide 1×1 convolution, the head. The
input of a block, through a 1×1 convolution and batch norm, joins before its last activation. QuartzNet
splits each convolution into one over time in each channel and one over channels in each frame;
Jasper's dense residual (DR) brings the inputs of all blocks before, too. Sizes are named B×R.

Parameters with the papers' 64 mel bins and 29 labels, and what the papers say: QuartzNet 5x5 6.7 M
(6.7), 10x5 12.8 M (12.8), 15x5 18.9 M (18.9); Jasper 10x3 201 M (201), 10x5 DR 333 M (333).

Design choices:

* Batch norm takes its statistics over real frames and leaves 0 at the others (``asrlib.model.norm``),
  which ReLU and dropout keep and the sum of residuals, too. So every convolution over time sees zeros
  beyond an utterance, as if it were alone.
* ReLU as in the papers, without the clipping of their first implementations.
* QuartzNet's kernels of 33 to 87 frames begin narrow. White ones, five between two residuals and one
  of 174 frames before the head, spread each sound over seconds, and CTC finds no alignment before
  they have learned not to: on AN4 the training loss of a 5x5 of half the width after 1,850 steps is
  1.1 instead of 2.2.
* On a CPU a convolution over so few frames that some tap meets nothing but padding is float32 also
  under autocast: oneDNN's bfloat16 kernels may leave the gradient of such a tap as it was in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from asrlib.model.convolution import Conv1d
from asrlib.model.dropout import Dropout
from asrlib.model.masking import conv_output_length, length_mask, mask_time
from asrlib.model.norm import MaskedBatchNorm1d
from asrlib.model.onednn import in_float32_on_cpu


@dataclass(frozen=True)
class Layer:
    """A row of a paper's table: one layer, or a group of like blocks."""

    channels: int
    kernel: int
    dilation: int = 1
    dropout: float = 1.0  # times the model's


@dataclass(frozen=True)
class Size:
    """What the dial ``size`` stands for."""

    blocks: int  # of each of the five groups
    repeats: int
    width: float = 1.0  # times the papers' channels


STRIDE = 2  # of the prologue, the first layer
JASPER_LAYERS = [
    Layer(256, 11),
    Layer(256, 11),
    Layer(384, 13),
    Layer(512, 17),
    Layer(640, 21, dropout=1.5),
    Layer(768, 25, dropout=1.5),
    Layer(896, 29, dilation=2, dropout=2.0),
    Layer(1024, 1, dropout=2.0),
]
JASPER_SIZES = {
    "xs": Size(blocks=1, repeats=1, width=0.25),
    "s": Size(blocks=1, repeats=2, width=0.5),
    "5x3": Size(blocks=1, repeats=3),
    "10x3": Size(blocks=2, repeats=3),
    "10x5": Size(blocks=2, repeats=5),
}
QUARTZNET_LAYERS = [
    Layer(256, 33),
    Layer(256, 33),
    Layer(256, 39),
    Layer(512, 51),
    Layer(512, 63),
    Layer(512, 75),
    Layer(512, 87, dilation=2),
    Layer(1024, 1),
]
QUARTZNET_SIZES = {
    "xs": Size(blocks=1, repeats=2, width=0.5),
    "s": Size(blocks=1, repeats=3, width=0.75),
    "5x5": Size(blocks=1, repeats=5),
    "10x5": Size(blocks=2, repeats=5),
    "15x5": Size(blocks=3, repeats=5),
}


def _localize(weight: Tensor, width: float = 1.5) -> None:
    """Random kernels [C, 1, K] begin as a Gaussian window of ``width`` frames, of the same power."""
    kernel = weight.shape[-1]
    taps = torch.arange(kernel, dtype=weight.dtype, device=weight.device) - kernel // 2
    window = torch.exp(-0.5 * (taps / width) ** 2)
    with torch.no_grad():
        weight.mul_(window * (kernel / window.square().sum()).sqrt())


class MaskedConv1d(nn.Module):
    """Convolution over time, full or separable, and batch norm of the real frames."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        separable: bool = False,
    ):
        super().__init__()
        padding = dilation * (kernel // 2)
        self.enough_frames = padding + stride  # for every tap to meet one of them
        over_time = {"stride": stride, "dilation": dilation, "padding": padding}
        if separable and kernel > 1:
            self.conv = nn.Sequential(
                Conv1d(
                    in_channels, in_channels, kernel, groups=in_channels, bias=False, **over_time
                ),
                Conv1d(in_channels, out_channels, 1, bias=False),
            )
        else:
            self.conv = Conv1d(in_channels, out_channels, kernel, bias=False, **over_time)
        for module in self.conv.modules():
            if isinstance(module, Conv1d):
                # ReLU halves the power and a residual doubles it: the untrained stack keeps its scale
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        if separable and kernel > 1:
            _localize(self.conv[0].weight)
        self.norm = MaskedBatchNorm1d(out_channels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, C, T], 0 beyond each length, and bool [B, T'] → [B, C', T'], 0 where ``mask`` is False."""
        few = x.shape[-1] < self.enough_frames
        x = in_float32_on_cpu(self.conv, x) if few else self.conv(x)
        return self.norm(x, mask)


class Block(nn.Module):
    """Repeats of (convolution, batch norm, ReLU, dropout); residuals join before the last ReLU.

    ``residual_channels`` are those of the inputs that join; without any it is a plain stack of layers.
    """

    def __init__(
        self,
        in_channels: int,
        layer: Layer,
        dropout: float,
        separable: bool,
        stride: int = 1,
        repeats: int = 1,
        residual_channels: Sequence[int] = (),
    ):
        super().__init__()
        widths = [in_channels] + [layer.channels] * repeats
        self.convolutions = nn.ModuleList(
            MaskedConv1d(*pair, layer.kernel, stride, layer.dilation, separable)
            for pair in pairwise(widths)
        )
        self.residuals = nn.ModuleList(
            MaskedConv1d(width, layer.channels) for width in residual_channels
        )
        self.activation = nn.Sequential(nn.ReLU(), Dropout(dropout * layer.dropout))

    def forward(self, x: Tensor, mask: Tensor, earlier: Sequence[Tensor] = ()) -> Tensor:
        """[B, C, T], bool [B, T'], the inputs that join [B, C_i, T'] → [B, C', T']."""
        for convolution in self.convolutions[:-1]:
            x = self.activation(convolution(x, mask))
        x = self.convolutions[-1](x, mask)
        for residual, state in zip(self.residuals, earlier, strict=True):
            x = x + residual(state, mask)
        return self.activation(x)


class _JasperFamily(nn.Module):
    """What Jasper and QuartzNet have in common: all but the numbers."""

    def __init__(
        self,
        n_mels: int,
        vocabulary_size: int,
        layers: list[Layer],
        size: Size,
        dropout: float,
        separable: bool,
        dense: bool,
    ):
        super().__init__()
        most = max(layer.dropout for layer in layers)
        if not 0 <= dropout * most < 1:
            raise ValueError(
                f"model.dropout={dropout}: the last layers have {most:g} times as much, so it must be in "
                f"[0, {1 / most:g})"
            )
        self.stride, self.dense = STRIDE, dense
        layers = [replace(x, channels=int(x.channels * size.width)) for x in layers]
        first, *groups, dilated, wide = layers
        common = {"dropout": dropout, "separable": separable}
        self.prologue = Block(n_mels, first, stride=STRIDE, **common)
        self.kernel = first.kernel
        self.blocks = nn.ModuleList()
        widths = [first.channels]  # of the input of each block
        for layer in groups:
            for _ in range(size.blocks):
                joining = widths if dense else widths[-1:]
                self.blocks.append(
                    Block(
                        widths[-1],
                        layer,
                        repeats=size.repeats,
                        residual_channels=joining,
                        **common,
                    )
                )
                widths.append(layer.channels)
        self.epilogue = nn.ModuleList(
            [Block(widths[-1], dilated, **common), Block(dilated.channels, wide, **common)]
        )
        self.head = nn.Linear(wide.channels, vocabulary_size)

    def output_length(self, lengths: Tensor | int) -> Tensor | int:
        """Encoder frames T' of feature frames T."""
        return conv_output_length(lengths, self.kernel, STRIDE, self.kernel // 2)

    def forward(self, spectrogram: Tensor, spectrogram_length: Tensor) -> dict[str, Tensor]:
        """float [B, F, T] and frames [B] → ``log_probs`` float32 [B, T', V], ``log_probs_length`` [B],
        and ``encoded`` [B, T', D]."""
        lengths = self.output_length(spectrogram_length)
        mask = length_mask(
            lengths, self.output_length(spectrogram.shape[-1]), device=spectrogram.device
        )
        states = [self.prologue(mask_time(spectrogram, spectrogram_length), mask)]
        for block in self.blocks:
            states.append(block(states[-1], mask, states if self.dense else states[-1:]))
        x = states[-1]
        for layer in self.epilogue:
            x = layer(x, mask)
        encoded = x.transpose(1, 2)
        log_probs = self.head(encoded).float().log_softmax(dim=-1)
        return {"log_probs": log_probs, "log_probs_length": lengths, "encoded": encoded}


def _size(model: str, sizes: dict[str, Size], name: str) -> Size:
    if name not in sizes:
        raise ValueError(f"{model} has sizes {list(sizes)}, not {name!r}")
    return sizes[name]


class Jasper(_JasperFamily):
    """Jasper: full convolutions, dense residuals.

    Args:
        n_mels: mel bins F of the input.
        vocabulary_size: labels V.
        size: one of ``JASPER_SIZES``.
        dense: the inputs of all blocks before join in each block, not only its own.
        dropout: of the first layers; 1.5 times as much in the last two groups of blocks, twice as
            much in the epilogue.

    Raises:
        ValueError: an unknown size.
    """

    def __init__(
        self,
        n_mels: int,
        vocabulary_size: int,
        size: str = "s",
        dense: bool = True,
        dropout: float = 0.2,
    ):
        found = _size("Jasper", JASPER_SIZES, size)
        super().__init__(
            n_mels, vocabulary_size, JASPER_LAYERS, found, dropout, separable=False, dense=dense
        )


class QuartzNet(_JasperFamily):
    """QuartzNet: separable convolutions, the residual of each block's own input.

    Args:
        n_mels: mel bins F of the input.
        vocabulary_size: labels V.
        size: one of ``QUARTZNET_SIZES``.
        dropout: after each activation; none in the published configuration, for 960 hours.

    Raises:
        ValueError: an unknown size.
    """

    def __init__(self, n_mels: int, vocabulary_size: int, size: str = "5x5", dropout: float = 0.0):
        found = _size("QuartzNet", QUARTZNET_SIZES, size)
        super().__init__(
            n_mels, vocabulary_size, QUARTZNET_LAYERS, found, dropout, separable=True, dense=False
        )
