"""Lengths and masks: how padding is kept out of real frames."""

import torch
from torch import Tensor


def length_mask(lengths: Tensor, size: int, device: torch.device | str) -> Tensor:
    """bool [B, size] on ``device``: True where a position is before its row's length."""
    positions = torch.arange(size, device=device)
    return positions < lengths.to(device, non_blocking=True).unsqueeze(1)


def mask_time(x: Tensor, lengths: Tensor) -> Tensor:
    """Zeroes [B, ..., T] at and beyond each row's length."""
    mask = length_mask(lengths, x.shape[-1], x.device)
    return x.masked_fill(~mask.view(len(lengths), *[1] * (x.ndim - 2), -1), 0.0)


def conv_output_length(
    length: Tensor | int, kernel: int, stride: int = 1, padding: int = 0
) -> Tensor | int:
    """Frames that a convolution makes of ``length`` frames (``torch.nn.Conv1d`` without dilation)."""
    return (length + 2 * padding - kernel) // stride + 1
