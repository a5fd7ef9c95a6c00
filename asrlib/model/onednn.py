"""What oneDNN, PyTorch's library for layers on a CPU, cannot do in bfloat16."""

import torch
from torch import Tensor, nn


def in_float32_on_cpu(layer: nn.Module, x: Tensor) -> Tensor | tuple[Tensor, ...]:
    """``layer(x)``, on a CPU in the format of the layer's weights (float32) also under autocast.

    For what oneDNN's bfloat16 does not do, or not well; the caller says what. Elsewhere, autocast
    decides.
    """
    if x.device.type != "cpu":
        return layer(x)
    with torch.autocast("cpu", enabled=False):
        return layer(x.to(next(layer.parameters()).dtype))
