"""The optimiser, with weight decay where it belongs."""

import torch
from torch import nn


def adamw(
    model: nn.Module,
    lr: float,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.98),
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019) that decays matrices and kernels only.

    Biases and the gains of normalisation have no scale to keep small, so they are left alone.
    """
    decayed, others = [], []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 else others).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=tuple(betas))
