"""The number format of an encoder: the fastest that its device really has, found by trying.

Design choices:

* The device is asked by a computation, not by its name: a T4 accepts bfloat16 but only imitates it, a
  CPU without bfloat16 instructions is slower with it, and a P100 is listed by CUDA although current
  builds of PyTorch hold no kernels for it.
* Weights, features, log_probs and losses are float32 throughout; ``torch.autocast`` chooses inside
  the encoder.
* float16 needs its loss scaled; bfloat16 has float32's range and does not.
"""

import time
from contextlib import AbstractContextManager
from math import inf

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WORTH_IT = 1.25  # times as fast as float32: less is not worth the lost digits
ROUNDS, TRIALS = 4, 3
SIDE = {"cpu": 512, "cuda": 2048}  # of the square matrices that are multiplied: a few milliseconds


def choose_precision(name: str, device: torch.device) -> str:
    """``name``, or for "auto" the fastest on ``device``: "bf16", "fp16" (GPU only) or "fp32".

    Raises:
        ValueError: no such precision.
        RuntimeError: the GPU cannot compute with this build of PyTorch, or not in this precision.
    """
    if name not in (*DTYPES, "auto"):
        raise ValueError(f"precision is one of {['auto', *DTYPES]}, not {name!r}")
    if name != "auto":
        multiplication_seconds(device, DTYPES[name])
        return name
    seconds = dict.fromkeys(
        ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16"), inf
    )
    for _ in range(ROUNDS):  # in turns, so that what else a machine does slows all of them
        for candidate in list(seconds):
            try:
                taken = multiplication_seconds(device, DTYPES[candidate])
            except RuntimeError:
                if candidate == "fp32":
                    raise
                del seconds[candidate]  # float32 works, this does not
            else:
                seconds[candidate] = min(seconds[candidate], taken)
    for candidate in ("bf16", "fp16"):
        if seconds.get(candidate, inf) * WORTH_IT < seconds["fp32"]:
            return candidate
    return "fp32"


def multiplication_seconds(device: torch.device, dtype: torch.dtype) -> float:
    """Shortest time of a matrix multiplication in ``dtype``.

    Raises:
        RuntimeError: the device cannot do it; the message says what to choose instead.
    """
    side = SIDE.get(device.type, 512)
    best = inf
    try:
        a = torch.ones(side, side, device=device, dtype=dtype)
        for _ in range(TRIALS):
            started = time.perf_counter()
            (a @ a)[0, 0].item()  # waits for the device
            best = min(best, time.perf_counter() - started)
    except torch.cuda.OutOfMemoryError as error:
        raise RuntimeError(
            f"{device} has no memory left: what else runs there? ({error})"
        ) from error
    except RuntimeError as error:
        raise RuntimeError(_advice(device, dtype, error)) from error
    return best


def _advice(device: torch.device, dtype: torch.dtype, error: RuntimeError) -> str:
    if device.type != "cuda" or not torch.cuda.is_available():
        return f"{device} cannot compute in {dtype}: {error}"
    major, minor = torch.cuda.get_device_capability(device)
    return (
        f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor}) cannot compute in "
        f"{dtype} with PyTorch {torch.__version__}, which is built for {torch.cuda.get_arch_list()}. "
        "Kaggle's P100 is such a GPU: choose the accelerator 'GPU T4 x2' there, or set "
        f"trainer.device=cpu, or inferencer.device=cpu. ({error})"
    )


class Precision:
    """How a training computes in the precision ``name`` of ``DTYPES`` on ``device``."""

    def __init__(self, name: str, device: torch.device):
        self.name, self.device = name, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager:
        """Within it, what may be computed in the shorter format is."""
        return torch.autocast(self.device.type, DTYPES[self.name], enabled=self.name != "fp32")
