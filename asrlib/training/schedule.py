"""Learning-rate schedules as pure functions of progress, from 0 at the start to 1 at the end.

A function of progress needs no state to resume, and does not change when batches are cut anew.
"""

import math


class WarmupCosine:
    """Linear warm-up, then half a cosine down to ``final`` (Loshchilov and Hutter, 2017).

    Args:
        warmup: share of the training that warms up.
        final: the last rate, as a share of the highest.
    """

    def __init__(self, warmup: float = 0.05, final: float = 0.01):
        self.warmup, self.final = warmup, final

    def __call__(self, progress: float) -> float:
        """The factor of the highest rate at ``progress`` in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        done = (progress - self.warmup) / (1 - self.warmup)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


class OneCycle:
    """Half a cosine up from ``initial``, half a cosine down to ``final`` (Smith and Topin, 2018).

    The same curve as ``torch.optim.lr_scheduler.OneCycleLR``, without the cycle of momentum.
    """

    def __init__(self, warmup: float = 0.3, initial: float = 0.04, final: float = 4e-6):
        self.warmup, self.initial, self.final = warmup, initial, final

    def __call__(self, progress: float) -> float:
        """The factor of the highest rate at ``progress`` in [0, 1]."""
        if progress < self.warmup:
            low, position = self.initial, 1 - progress / self.warmup
        else:
            low, position = self.final, (progress - self.warmup) / (1 - self.warmup)
        return low + (1 - low) * (1 + math.cos(math.pi * position)) / 2


class Noam:
    """Linear warm-up, then down with the inverse square root of the step (Vaswani et al., 2017).

    There, the rate at step s is D^-0.5 · min(s^-0.5, s · S^-1.5) with S steps of warm-up: at most
    (D · S)^-0.5, at s = S. Here that highest rate is ``optimizer.lr``, and S is a share of all steps.

    Args:
        warmup: share of the training that warms up, in (0, 1]; the last rate is √warmup of the highest.
    """

    def __init__(self, warmup: float = 0.1):
        if not 0 < warmup <= 1:
            raise ValueError(f"Noam needs a warm-up in (0, 1], not {warmup}")
        self.warmup = warmup

    def __call__(self, progress: float) -> float:
        """The factor of the highest rate at ``progress`` in [0, 1]."""
        if progress < self.warmup:
            return progress / self.warmup
        return math.sqrt(self.warmup / progress)
