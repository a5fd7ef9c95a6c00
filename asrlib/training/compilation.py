"""torch.compile, where there is what it needs."""

import torch
from torch import nn


def compile_encoder(encoder: nn.Module, device: torch.device) -> None:
    """Compiles ``encoder`` in place, for batches of any shape; its parameters keep their names.

    The first batches wait for the compiler, some minutes on a CPU. It is meant for GPUs: on a CPU the
    code that PyTorch 2.11 makes of DeepSpeech2 and Conformer refuses batches of a new shape
    (``assert_size_stride``, behind their 2-D convolutions). Where a trivial function cannot
    be compiled, because a C++ compiler or Triton is missing or the GPU is too old, the encoder is
    left as it is and the reason printed.
    """
    try:
        torch.compile(torch.neg)(torch.ones(2, device=device))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        print(f"trainer.compile=true has no effect, nothing can be compiled here: {reason}")
    else:
        encoder.compile(dynamic=True)
