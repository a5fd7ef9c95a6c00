"""Conformer: attention for what is far, convolution for what is near, CTC.

Gulati et al., "Conformer: convolution-augmented transformer for speech recognition", Interspeech 2020.

Design choices, where this differs from the paper:

* Rotary instead of relative positions; ``attention.py`` says why.
* Layer normalisation of each frame instead of batch normalisation in the convolution module: neither
  padding nor the rest of the batch can then reach an utterance, in training as well as in evaluation.
* The subsampling has about a quarter of the width as channels. With all of them it takes a third of
  the time on a CPU, for its first output has half of the feature frames and 40 bins of each channel.
* Its output is normalised instead of scaled by the root of the width; both are there so that the
  residual stream does not begin much smaller than what the first block adds to it.
* Convolutions run on [B, T, D] as it is: to a 2-D convolution this is an image in channels-last
  format. ``conv1d`` on the transpose takes five times as long (CPU, 31 taps, forward and backward).
* The residual stream stays float32 under autocast.
* PyTorch's initial weights. Since each block ends in a normalisation, the stream is as large after
  the last block as after the first; and no normalisation has to follow the last.

Parameters. The paper counts a transducer: 10.3, 30.7 and 118.8 million for s, m and l. It does not
say how wide the subsampling, the label embedding and the joint layer are; with D channels, 128 and
640 all three sizes come out within 1 %. In millions, with 80 bins and 1,024 labels (H is the width
of the transducer's LSTM, 320 for s, else 640):

                                                                   s        m        l
    this encoder without its head                              7.874   24.733  104.490
    D² + 2D in each block: relative positions                  0.336    1.057    4.474
    29D² + 12D for the subsampling, less what ours has         0.501    1.538    6.148
    128V + 4H(H + 130) + 640(D + H + 2) + 641V: transducer     1.661    3.333    3.497
                                                              10.372   30.661  118.609
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrlib.model.attention import SelfAttention, rotations
from asrlib.model.dropout import Dropout, StochasticDepth
from asrlib.model.masking import conv_output_length, length_mask, mask_time
from asrlib.model.onednn import in_float32_on_cpu
from asrlib.text.phones import PHONES


@dataclass(frozen=True)
class Size:
    """What the dial ``size`` stands for."""

    width: int  # D
    layers: int  # blocks
    heads: int  # of attention
    kernel: int  # frames under the depthwise convolution
    channels: int  # of the subsampling


# s, m and l are the paper's, but for one tap: an odd kernel has a middle. short has about the parameters of s
# in half as many blocks, so it takes half as many launches of a GPU, and a shorter way to the first layer.
SIZES = {
    "xxs": Size(width=48, layers=2, heads=2, kernel=7, channels=16),
    "xs": Size(width=128, layers=8, heads=4, kernel=15, channels=32),
    "s": Size(width=144, layers=16, heads=4, kernel=31, channels=32),
    "short": Size(width=224, layers=8, heads=4, kernel=15, channels=48),
    "m": Size(width=256, layers=16, heads=4, kernel=31, channels=64),
    "l": Size(width=512, layers=17, heads=8, kernel=31, channels=128),
}


class Subsampling(nn.Module):
    """Convolutions that each halve frames and bins, then one vector for each frame.

    Args:
        factor: 4 or 8, feature frames per frame of the output.
    """

    KERNEL, STRIDE, PADDING = 3, 2, 1

    def __init__(self, n_mels: int, channels: int, width: int, factor: int):
        super().__init__()
        stages = factor.bit_length() - 1
        self.convolutions = nn.ModuleList(
            nn.Conv2d(1 if i == 0 else channels, channels, self.KERNEL, self.STRIDE, self.PADDING)
            for i in range(stages)
        )
        bins = n_mels
        for _ in range(stages):
            bins = self._halved(bins)
        self.project = nn.Linear(bins * channels, width)
        self.norm = nn.LayerNorm(width)

    def _halved(self, length: Tensor | int) -> Tensor | int:
        return conv_output_length(length, self.KERNEL, self.STRIDE, self.PADDING)

    def output_length(self, lengths: Tensor) -> Tensor:
        for _ in self.convolutions:
            lengths = self._halved(lengths)
        return lengths

    def forward(self, spectrogram: Tensor, lengths: Tensor) -> Tensor:
        """[B, F, T], frames [B] → [B, T', D]; what stands beyond a length has no meaning."""
        # [B, 1, T, F] in channels-last format, so that flattening at the end copies nothing
        x = mask_time(spectrogram, lengths).transpose(1, 2).contiguous()
        x = x.unsqueeze(-1).permute(0, 3, 1, 2)
        for i, convolution in enumerate(self.convolutions):
            if i > 0:
                lengths = self._halved(lengths)
                mask = real_frames(lengths, x.shape[2], x.device)
                if mask is not None:
                    x = x * mask[:, None, :, None].to(x.dtype)
            x = F.relu(convolution(x), inplace=True)
        return self.norm(self.project(x.permute(0, 2, 3, 1).flatten(2)))


class FeedForward(nn.Sequential):
    """Layer norm, four times the width, SiLU, back to the width."""

    def __init__(self, width: int, dropout: float):
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.SiLU(),
            Dropout(dropout),
            nn.Linear(4 * width, width),
            Dropout(dropout),
        )


class ConvolutionModule(nn.Module):
    """Layer norm, gated linear unit, depthwise convolution over time, layer norm, SiLU, linear."""

    def __init__(self, width: int, kernel: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv2d(
            width, width, (1, kernel), padding=(0, kernel // 2), groups=width
        )
        self.depthwise_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, D], bool [B, T] at real frames or None if all are → [B, T, D]."""
        x = F.glu(self.gate(self.norm(x)), dim=-1)
        if mask is not None:
            x = x * mask.unsqueeze(-1).to(x.dtype)
        image = x.transpose(1, 2).unsqueeze(2)  # [B, D, 1, T], channels-last as it stands
        # for some shapes, such as one utterance, width 144 and two threads, oneDNN never comes to the end of
        # writing its bfloat16 kernel (PyTorch 2.11, a CPU with AMX), and no signal reaches the process
        x = in_float32_on_cpu(self.depthwise, image).squeeze(2).transpose(1, 2)
        return self.dropout(self.out(F.silu(self.depthwise_norm(x))))


class ConformerBlock(nn.Module):
    """Half a feed-forward step, attention, convolution, half a feed-forward step, layer norm."""

    def __init__(self, size: Size, dropout: float, stochastic_depth: float):
        super().__init__()
        width = size.width
        self.feed_forward_before = FeedForward(width, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, size.heads)
        self.attention_dropout = Dropout(dropout)
        self.convolution = ConvolutionModule(width, size.kernel, dropout)
        self.feed_forward_after = FeedForward(width, dropout)
        self.norm = nn.LayerNorm(width)
        self.stochastic_depth = StochasticDepth(stochastic_depth)

    def forward(self, x: Tensor, by: Tensor, mask: Tensor | None) -> Tensor:
        """float32 [B, T, D] → the same; ``by`` and ``mask`` as of ``SelfAttention``."""
        factors = self.stochastic_depth(x)
        x = add(x, self.feed_forward_before(x), factors, 0.5)
        attended = self.attention(self.attention_norm(x), by, mask)
        x = add(x, self.attention_dropout(attended), factors)
        x = add(x, self.convolution(x, mask), factors)
        x = add(x, self.feed_forward_after(x), factors, 0.5)
        return self.norm(x)


def add(x: Tensor, branch: Tensor, factors: Tensor | None, step: float = 1.0) -> Tensor:
    """x + step · factors · branch in one pass over memory; ``factors`` None are ones."""
    if factors is None:
        return torch.add(x, branch, alpha=step)
    return torch.addcmul(x, branch, factors, value=step)


class Conformer(nn.Module):
    """Conformer encoder with CTC labels.

    Args:
        n_mels: mel bins F of the input.
        vocabulary_size: labels V.
        size: one of ``SIZES``.
        subsampling: feature frames of 10 ms per encoder frame, 4 or 8; 8 are too many for characters.
        dropout: of every branch, and within the feed-forward steps.
        stochastic_depth: how often the last block is left out of an utterance in training; those
            before it in proportion to their number (Huang et al. 2016).
        intermediate_layers: numbers of blocks, the first being 1, whose output the head also labels,
            for a CTC loss there too (Lee and Watanabe, ICASSP 2021). The last block's is ``log_probs``.
        phone_layer: number of the block from whose output a head of its own makes phones
            (``asrlib.text.phones``), for a CTC loss that teaches the lower blocks how words sound (Fernández
            et al. 2007; Krishna et al. 2018). The blocks above it are given what it found, as in Nozaki and
            Komatsu ("Relaxing the conditional independence assumption of CTC-based ASR by conditioning on
            intermediate predictions", Interspeech 2021). None: no phones.

    Raises:
        ValueError: an unknown size or subsampling, a rate outside [0, 1), no such block.
    """

    takes_lengths_on_device = True

    def __init__(
        self,
        n_mels: int,
        vocabulary_size: int,
        size: str = "s",
        subsampling: int = 4,
        dropout: float = 0.1,
        stochastic_depth: float = 0.0,
        intermediate_layers: list[int] | tuple[int, ...] = (),
        phone_layer: int | None = None,
    ):
        super().__init__()
        if size not in SIZES or subsampling not in (4, 8):
            raise ValueError(
                f"Conformer has sizes {list(SIZES)} and subsampling 4 and 8, "
                f"not {size!r}, {subsampling!r}"
            )
        self.size, self.stride = SIZES[size], subsampling
        layers, width = self.size.layers, self.size.width
        inner = {*intermediate_layers, *([] if phone_layer is None else [phone_layer])}
        if not inner <= set(range(1, layers)):
            raise ValueError(
                f"intermediate layers of {size!r} are 1 to {layers - 1}, not {intermediate_layers!r}; its "
                f"phone layer is one of them, not {phone_layer!r}"
            )
        self.intermediate_layers = sorted(set(intermediate_layers))
        self.subsampling = Subsampling(n_mels, self.size.channels, width, subsampling)
        self.blocks = nn.ModuleList(
            ConformerBlock(self.size, dropout, stochastic_depth * number / layers)
            for number in range(1, layers + 1)
        )
        self.head = nn.Linear(width, vocabulary_size)
        self.phone_layer, self.phone_head = phone_layer, None
        if phone_layer is not None:
            self.phone_head = nn.Linear(width, 1 + len(PHONES))
            self.from_phones = nn.Linear(1 + len(PHONES), width)

    def output_length(self, lengths: Tensor) -> Tensor:
        """Encoder frames T' of feature frames T."""
        return self.subsampling.output_length(lengths)

    def forward(
        self, spectrogram: Tensor, spectrogram_length: Tensor
    ) -> dict[str, Tensor | list[Tensor]]:
        """float [B, F, T] and frames [B] → ``log_probs`` float32 [B, T', V], ``log_probs_length`` [B],
        and ``encoded`` float32 [B, T', D].

        With ``intermediate_layers`` also ``intermediate_log_probs``, one like ``log_probs`` for each; with
        ``phone_layer`` ``phone_log_probs`` float32 [B, T', 1 + phones].
        """
        lengths = self.output_length(spectrogram_length)
        x = self.subsampling(spectrogram, spectrogram_length).float()
        mask = real_frames(lengths, x.shape[1], x.device)
        by = rotations(x.shape[1], self.size.width // self.size.heads, x.device)
        intermediate, phones = [], {}
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, by, mask)
            if number in self.intermediate_layers:
                intermediate.append(self._log_probs(x))
            if number == self.phone_layer:
                phones["phone_log_probs"] = self.phone_head(x).float().log_softmax(dim=-1)
                x = x + self.from_phones(phones["phone_log_probs"].exp())
        out = {"log_probs": self._log_probs(x), "log_probs_length": lengths, "encoded": x} | phones
        return out | ({"intermediate_log_probs": intermediate} if intermediate else {})

    def _log_probs(self, x: Tensor) -> Tensor:
        return self.head(x).float().log_softmax(dim=-1)


def real_frames(lengths: Tensor, frames: int, device: torch.device) -> Tensor | None:
    """bool [B, frames] on ``device``, True before each row's length; None if there is no padding.

    An empty row counts as one frame, for attention must have something to look at.
    """
    try:  # the CPU would have to wait for lengths on a GPU, and a recording may not (training.graphs)
        padded = lengths.is_cuda or int(lengths.min()) < frames
    except RuntimeError:  # of tensors that are shapes without values: asrlib.model.table
        padded = True
    if not padded:
        return None
    return length_mask(lengths.clamp(min=1), frames, device)
