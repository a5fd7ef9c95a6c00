"""A running average of weights: what is evaluated and exported, while training goes on with the raw ones.

Exponential with bias correction, as the moments in Adam (Kingma and Ba, 2015): after n steps the
weights of step k count with decay**(n − k), divided by the sum of these factors. So the random
initialisation, and how many steps there were, have no part in it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The running average of all that a checkpoint keeps of ``encoder``.

    Buffers of floating point, such as the statistics of batch norm, are averaged like parameters,
    since it is averaged parameters that they will serve; all others are the newest.

    Args:
        decay: 0.999 averages about the last thousand steps.
    """

    def __init__(self, encoder: nn.Module, decay: float):
        self.encoder, self.decay = encoder, decay
        self.updates = 0
        self.tensors = {name: t.clone() for name, t in encoder.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after an optimiser's step."""
        self.updates += 1
        # the share of the newest of all steps so far: 1 at the first, then towards 1 − decay
        share = (1 - self.decay) / (1 - self.decay**self.updates)
        means, floating = [], []
        for name, newest in self.encoder.state_dict().items():
            if newest.is_floating_point():
                means.append(self.tensors[name])
                floating.append(newest)
            else:
                self.tensors[name].copy_(newest)
        torch._foreach_lerp_(means, floating, share)  # on a GPU a few kernels instead of hundreds

    def restore(self, tensors: dict[str, Tensor], updates: int) -> None:
        """Goes on from the average ``tensors`` of ``updates`` steps."""
        _copy(tensors, self.tensors)
        self.updates = updates

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the encoder has the averaged weights."""
        raw = {name: t.clone() for name, t in self.encoder.state_dict().items()}
        _copy(self.tensors, self.encoder.state_dict())
        try:
            yield
        finally:
            _copy(raw, self.encoder.state_dict())


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
