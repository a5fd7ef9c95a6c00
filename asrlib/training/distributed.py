"""Several processes that train one model, started by torchrun; or one, alone.

Design choices:

* Gradients are exchanged once, after all of them were computed. ``DistributedDataParallel`` begins
  earlier, but a process that runs out of batches or of memory then leaves the others waiting; here
  each tells first how it went, and all do the same about it.
* The sum of gradients is not divided by anything: each process has divided its losses by the count
  of all processes, so unequal batches weigh as they would in one.
* Numbers that decide something go through gloo on the CPU, gradients on GPUs through NCCL.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from tqdm import tqdm

TIMEOUT = timedelta(hours=2)  # the first process may index a corpus, or evaluate, that long

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """This process among all that train together; alone unless torchrun says otherwise."""

    rank: int = 0
    size: int = 1
    control: Any = None  # the group for numbers on the CPU

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and prints."""
        return self.rank == 0

    def gather(self, value: Value) -> list[Value]:
        """``value`` of every process, by rank, in every process; all wait for the last."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        distributed.all_gather_object(values, value, self.control)
        return values

    def first(self, function: Callable[[], Value]) -> Value:
        """What ``function`` returns in the first process, where alone it is called."""
        return self.gather(function() if self.is_first else None)[0]

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The first process does what is within, then the others, which find its files."""
        if not self.is_first:
            self.gather(None)
        yield
        if self.is_first:
            self.gather(None)

    def tell(self, line: str) -> None:
        """Prints a line, once, above the progress bar; at once also where the output is a pipe or a file."""
        if self.is_first:
            tqdm.write(line)
            sys.stdout.flush()

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Makes each gradient the sum over all processes: None where none of them has one."""
        if self.size == 1:
            return
        there = parameters[0].new_tensor([p.grad is not None for p in parameters])
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.sum_(torch.cat([there, *(gradient.flatten() for gradient in own)]))
        counts, sums = flat[: len(parameters)].tolist(), flat[len(parameters) :]
        for parameter, count, total in zip(
            parameters, counts, sums.split([p.numel() for p in parameters]), strict=True
        ):
            parameter.grad = total.view_as(parameter) if count else None


ALONE = World()


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """The world that torchrun made, and the device of this process in it.

    Args:
        device: what was asked for; of several GPUs, each process of a machine gets its own.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "RANK" not in os.environ:
        yield ALONE, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        control = distributed.new_group(backend="gloo", timeout=TIMEOUT)
        yield World(distributed.get_rank(), distributed.get_world_size(), control), device
    finally:
        distributed.destroy_process_group()
