"""Dropout of single values, and of whole residual branches. All draws come from torch's global
generator, which the trainer seeds anew for each step."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 256  # of a random byte: on a CPU a rate is a multiple of 1 / 256


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014), three times as fast on a CPU as ``torch.nn.Dropout``.

    There, drawing takes longer than the matrix product beside it; one byte for each value suffices,
    and the generator makes eight bytes at a time. The scale belongs to the rate rounded to bytes,
    so that the expectation is exact.
    """

    def __init__(self, rate: float):
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"a dropout rate is in [0, 1), not {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape → the same, scaled to keep its expectation; unchanged in evaluation."""
        if not self.training or self.rate == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        dropped = min(round(self.rate * LEVELS), LEVELS - 1)
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        # in the memory order of x: mixed orders would be several times as slow
        order = torch.empty_like(x, device="meta").stride()
        kept = words.view(torch.uint8).as_strided(x.shape, order) >= dropped
        return x * (kept.to(x.dtype) * (LEVELS / (LEVELS - dropped)))


class StochasticDepth(nn.Module):
    """Leaves a block out for some utterances (Huang et al. 2016), each drawn on its own.

    A whole batch skipping the block would save its time, but make noisier gradients, and parameters
    without any, which data-parallel training does not like.
    """

    def __init__(self, rate: float):
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"a rate of stochastic depth is in [0, 1), not {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor | None:
        """[B, T, D] → factors float32 [B, 1, 1] of its residual branches: 0, or what makes up for
        the zeros in expectation; None, for all ones, in evaluation."""
        if not self.training or self.rate == 0.0:
            return None
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return kept / (1.0 - self.rate)
