"""A convolution over time that is fast on a CPU, too."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv1d(nn.Conv1d):
    """``nn.Conv1d``, [B, C, T] → [B, C', T']; on a CPU by way of memory in the order [B, T, C].

    There the operations between convolutions are no slower in that order (a mask of frames is several
    times as fast), a kernel of one frame is a matrix product as it stands, and the others are those of
    an image in channels-last format. ``conv1d`` needs the order [B, C, T] and takes up to four times
    as long, forward and backward.

    A convolution of each channel on its own sees an image whose columns are the frames that a dilated
    kernel sees together, padded to the length of the kernel, for oneDNN is slow with shorter ones, and
    in bfloat16 leaves some gradients of weights undefined.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        (kernel,), (stride,), (padding,) = self.kernel_size, self.stride, self.padding
        if (kernel, stride, padding, self.groups) == (1, 1, 0, 1):
            return F.linear(x.transpose(1, 2), self.weight.squeeze(2), self.bias).transpose(1, 2)
        (dilation,) = self.dilation
        fits = dilation == 1 or (stride == 1 and padding % dilation == 0)
        if fits and self.groups == self.in_channels == self.out_channels:
            return self._depthwise(x)
        image = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        weight = self.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        options = (1, stride), (0, padding), (1, dilation), self.groups
        y = F.conv2d(image, weight, self.bias, *options)
        return y.squeeze(2)

    def _depthwise(self, x: Tensor) -> Tensor:
        (kernel,), (stride,), (dilation,) = self.kernel_size, self.stride, self.dilation
        frames = x.shape[-1]
        missing = max(-frames % dilation, kernel * dilation - frames)
        image = x.transpose(1, 2).contiguous()
        if missing:
            image = F.pad(image, (0, 0, 0, missing))
        image = image.unflatten(1, (-1, dilation)).permute(0, 3, 1, 2)
        padding = self.padding[0] // dilation
        weight = self.weight.unsqueeze(3)
        y = F.conv2d(image, weight, self.bias, (stride, 1), (padding, 0), groups=self.groups)
        length = (frames + 2 * self.padding[0] - dilation * (kernel - 1) - 1) // stride + 1
        return y.flatten(2)[..., :length]
