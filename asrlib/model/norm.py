"""Batch normalisation that sees real frames only.

Ioffe and Szegedy, "Batch normalization", ICML 2015.

Design choices:

* In training, mean and variance are taken over the real frames of the batch, so neither the amount of
  padding nor what it holds changes a statistic. In evaluation the running statistics serve, so
  nothing depends on the rest of the batch.
* Frames of padding leave as 0. A convolution that follows, after activations and dropout that keep 0
  at 0, then needs no mask of its own.
* Statistics are float32 under autocast. The backward pass computes the normalised input again from
  the input, which is all that is kept: plain operations would keep float32 copies, several times as
  much memory.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def _per_channel(x: Tensor) -> Tensor:
    return x.view(1, -1, 1)


def _factors(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """bool [B, T] → [B, 1, T]: 1 at real frames, 0 elsewhere."""
    return mask.unsqueeze(1).to(dtype)


def _wide(x: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of x [B, C, T] in the same memory order, 0 where ``mask`` is False.

    Filled, for padding may hold what is not finite; a product is several times as fast on a CPU.
    """
    return x.to(dtype, copy=True).masked_fill_(~mask.unsqueeze(1), 0.0)


class _NormalizeRealFrames(torch.autograd.Function):
    """x [B, C, T], mask [B, T], weight, bias, eps → y [B, C, T]; mean, biased variance, real frames."""

    @staticmethod
    def forward(ctx, x, mask, weight, bias, eps):
        real = _factors(mask, torch.promote_types(x.dtype, torch.float32))
        count = mask.sum().clamp(min=1)
        wide = _wide(x, mask, real.dtype)
        mean = wide.sum(dim=(0, 2)) / count
        centred = wide.sub_(_per_channel(mean)).mul_(real)
        variance = centred.square().sum(dim=(0, 2)) / count
        inverse = (variance + eps).rsqrt()
        y = centred.mul_(_per_channel(inverse * weight)).add_(_per_channel(bias)).mul_(real)
        ctx.save_for_backward(x, mask, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y, *_):
        x, mask, weight, mean, inverse, count = ctx.saved_tensors
        real = _factors(mask, mean.dtype)
        grad_y = grad_y * real
        normed = _wide(x, mask, mean.dtype)
        normed.sub_(_per_channel(mean)).mul_(_per_channel(inverse))
        grad_bias = grad_y.sum(dim=(0, 2))
        grad_weight = (grad_y * normed).sum(dim=(0, 2))
        # each frame moved the mean and the variance, too: hence the two terms that are taken off
        normed.mul_(_per_channel(grad_weight / count)).add_(_per_channel(grad_bias / count))
        grad_x = grad_y.sub_(normed).mul_(_per_channel(inverse * weight)).mul_(real)
        return grad_x.to(x.dtype), None, grad_weight, grad_bias, None


class MaskedBatchNorm1d(nn.Module):
    """``nn.BatchNorm1d`` for padded sequences: equal to it where nothing is padding.

    A batch of a single real frame is no error: its output is the bias.

    Args:
        channels: C.
        eps: added to the variance.
        momentum: weight of a batch's statistics in the running ones.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, C, T] and bool [B, T], True at real frames → [B, C, T] of the same dtype, 0 elsewhere."""
        if not self.training:
            y = F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
            return y.masked_fill(~mask.unsqueeze(1), 0.0)
        y, mean, variance, count = _NormalizeRealFrames.apply(
            x, mask, self.weight, self.bias, self.eps
        )
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return y
