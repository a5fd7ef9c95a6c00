"""What this machine can do for a training, found by trying.

>>> from asrlib.machine import survey
>>> machine = survey()
>>> machine.device in ("cpu", "cuda")
True
"""

import os
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from asrlib.build import build
from asrlib.cores import usable_cores
from asrlib.model.table import LABELS, USED, cost
from asrlib.precision import choose_precision

CPU_BATCH_SECONDS = 20  # on a CPU larger batches are hardly faster, and steps are what it lacks


@dataclass(frozen=True)
class GPU:
    name: str
    memory: int  # bytes
    precision: str | None  # the fastest that it really has; None: it cannot be used
    problem: str = ""  # why not, and what to do


@dataclass(frozen=True)
class Machine:
    """``memory`` and ``free`` (of the folder that was asked about) in bytes."""

    cores: int
    memory: int
    folder: str
    free: int
    writable: bool
    torch: str
    numpy: str
    gpus: list[GPU] = field(default_factory=list)
    cpu_precision: str = "fp32"

    @property
    def usable(self) -> list[GPU]:
        return [gpu for gpu in self.gpus if gpu.precision]

    @property
    def device(self) -> str:
        return "cuda" if self.usable else "cpu"

    @property
    def processes(self) -> int:
        """How many should train together: one for each GPU."""
        return max(1, len(self.usable))

    @property
    def precision(self) -> str:
        return self.usable[0].precision if self.usable else self.cpu_precision

    def batch_seconds(self, config: DictConfig) -> int:
        """``trainer.batch_seconds`` that fills this GPU with the model of ``config``; two digits.

        An estimate to begin with, as in the tables of ``configs/model``.
        """
        if not self.usable:
            return CPU_BATCH_SECONDS
        labels = config.text_encoder.get("vocabulary_size", LABELS)
        make = partial(build, config.model, n_mels=config.features.n_mels, vocabulary_size=labels)
        memory = USED * min(gpu.memory for gpu in self.usable)
        views = 2 if config.loss.get("consistency") else 1  # of each utterance in a batch
        return int(float(f"{cost(make, memory).batch_seconds / views:.2g}"))

    def rows(self) -> list[tuple[str, str]]:
        """What there is, as a table of two columns."""
        gpus = [(f"GPU {i}", self._gpu_row(gpu)) for i, gpu in enumerate(self.gpus)]
        space = f"{self.free / 1e9:.0f} GB free" if self.writable else "cannot be written to"
        return [
            *(gpus or [("GPU", "none: a CPU trains the small experiments only")]),
            (
                "CPU",
                f"{self.cores} cores, {self.cpu_precision}, {self.memory / 1e9:.0f} GB of memory",
            ),
            (self.folder, space),
            ("torch, numpy", f"{self.torch}, {self.numpy}"),
        ]

    @staticmethod
    def _gpu_row(gpu: GPU) -> str:
        told = f"{gpu.name}, {gpu.memory / 1e9:.0f} GB, "
        return told + (
            f"trains in {gpu.precision}" if gpu.precision else f"unusable: {gpu.problem}"
        )


def survey(folder: Path | str = ".") -> Machine:
    """Tries each GPU, and looks at ``folder``, where the training would write."""
    folder = Path(folder).absolute()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    return Machine(
        cores=usable_cores(),
        memory=_memory(),
        folder=str(folder),
        free=shutil.disk_usage(there).free,
        writable=os.access(there, os.W_OK),
        torch=torch.__version__,
        numpy=np.__version__,
        gpus=[_try_gpu(i) for i in range(torch.cuda.device_count())],
        cpu_precision=choose_precision("auto", torch.device("cpu")),
    )


def _try_gpu(index: int) -> GPU:
    properties = torch.cuda.get_device_properties(index)
    try:
        precision, problem = choose_precision("auto", torch.device("cuda", index)), ""
    except RuntimeError as error:
        precision, problem = None, str(error)
    return GPU(properties.name, properties.total_memory, precision, problem)


def _memory() -> int:
    """Bytes of main memory; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
