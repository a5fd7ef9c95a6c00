"""How fast a device trains: the measurements of ``bench.gpu_check``."""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from omegaconf import OmegaConf

from asrlib.build import build
from asrlib.configs import compose
from asrlib.data import SAMPLE_RATE
from asrlib.model.table import LABELS, N_MELS, cost
from asrlib.precision import DTYPES
from asrlib.training import Trainer, build_trainer, step

BACKWARD = 3  # forward and backward pass take this times the FLOP of the forward pass
SMALLEST_BATCH = 10  # seconds


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_products(device: torch.device, precision: str, side: int) -> dict:
    """TFLOP per second: the best of ten square products."""
    a = torch.randn(side, side, device=device).to(DTYPES[precision])
    best = float("inf")
    for _ in range(10):
        synchronize(device)
        started = time.perf_counter()
        a @ a
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return {"precision": precision, "side": side, "tflops": 2 * side**3 / best / 1e12}


class Batches:
    """Of at most ``seconds`` each: four that stay in memory, or all of them through the loader."""

    def __init__(self, loader, seconds: float):
        self.loader, self.seconds = loader, seconds
        self.kept = list(islice(self.through_the_loader(), 4))

    def in_memory(self) -> Iterator[dict]:
        while True:
            yield from self.kept

    def through_the_loader(self) -> Iterator[dict]:
        epoch = 0
        while True:
            self.loader.batch_sampler.set_epoch(epoch)
            yield from self.loader
            epoch += 1


class Throughput:
    """Training steps, measured for some seconds each, on the utterances in ``root/train``.

    Args:
        batch_seconds: audio in a batch; halved for what does not fit into memory.
        workers: of the loader.
        measured_seconds: of each measurement.
    """

    def __init__(
        self,
        device: torch.device,
        root: Path,
        batch_seconds: float,
        workers: int,
        measured_seconds: float,
    ):
        self.device, self.root = device, root
        self.batch_seconds, self.workers = batch_seconds, workers
        self.measured_seconds = measured_seconds
        self.products: dict[str, float] = {}  # precision → TFLOP per second
        self._batches: Batches | None = None

    def matrix_products(self, precision: str, side: int) -> dict:
        row = matrix_products(self.device, precision, side)
        self.products[precision] = row["tflops"]
        return row

    def loader(self) -> dict:
        """The loader alone: reading, changing waveforms, padding."""
        batches = self.batches(self.batch_seconds).through_the_loader()
        next(batches)
        started, samples = time.monotonic(), 0
        while time.monotonic() < started + self.measured_seconds:
            samples += int(next(batches)["audio_length"].sum())
        rate = _rate(samples / SAMPLE_RATE, time.monotonic() - started)
        return rate | {"workers": self.workers}

    def train(self, model: str, size: str, precision: str, *more: str) -> dict:
        """Steps of a model, its batches in memory, and then through the loader."""
        seconds = self.batch_seconds
        while True:
            try:
                return self._train(self.batches(seconds), model, size, precision, *more)
            except MemoryError:
                if seconds / 2 < SMALLEST_BATCH:
                    raise
            torch.cuda.empty_cache()  # outside the handler, which holds on to what failed
            seconds /= 2

    def batches(self, seconds: float) -> Batches:
        if self._batches is None or self._batches.seconds != seconds:
            with tempfile.TemporaryDirectory() as run_dir:
                trainer = self._trainer(run_dir, seconds, "model=mlp")
                trainer.writer.close()
            self._batches = Batches(trainer.train_loader, seconds)
        return self._batches

    def _trainer(self, run_dir: str, seconds: float, *more: str) -> Trainer:
        common = [
            "datasets=an4",
            f"datasets.root={self.root}",
            f"run_dir={run_dir}",
            f"trainer.device={self.device}",
            f"trainer.batch_seconds={seconds}",
            f"trainer.num_workers={self.workers}",
            "trainer.max_bad_steps=1",  # a batch that does not fit ends it, instead of being left out
            "optimizer.lr=1e-6",  # what is learned does not matter, and must not diverge
        ]
        return build_trainer(compose("train", *common, *more))

    def _train(self, batches: Batches, model: str, size: str, precision: str, *more: str) -> dict:
        choice = [f"model={model}", f"model.size={size}", f"trainer.precision={precision}"]
        with tempfile.TemporaryDirectory() as run_dir:
            trainer = self._trainer(run_dir, batches.seconds, *choice, *more)
            trainer._set_precision()
            trainer.model.train()
            in_memory = self._steps(trainer, batches.in_memory())
            loaded = self._steps(trainer, batches.through_the_loader())
            trainer.writer.close()
        section = OmegaConf.to_container(trainer.config.model)
        flops = cost(partial(build, section, n_mels=N_MELS, vocabulary_size=LABELS)).flops
        tflops = BACKWARD * flops * in_memory["audio_seconds_per_second"] / 1e12
        return in_memory | {
            "audio_seconds_per_second_through_the_loader": loaded["audio_seconds_per_second"],
            "model": model,
            "size": size,
            "precision": precision,
            "parameters": trainer.model.parameter_count(),
            "batch_seconds": batches.seconds,
            "tflops": tflops,
            "share_of_matrix_products": tflops / self.products[precision],
        }

    def _steps(self, trainer: Trainer, batches: Iterator[dict]) -> dict:
        """The rate of steps, after three that are not counted."""
        for batch in islice(batches, 3):
            step.take(trainer, [batch])
        synchronize(self.device)
        before, started = trainer.progress.audio_seconds, time.monotonic()
        while time.monotonic() < started + self.measured_seconds:
            step.take(trainer, [next(batches)])
        synchronize(self.device)
        elapsed = time.monotonic() - started
        return _rate(trainer.progress.audio_seconds - before, elapsed)


def _rate(audio_seconds: float, seconds: float) -> dict:
    rate = audio_seconds / seconds
    return {"audio_seconds": audio_seconds, "seconds": seconds, "audio_seconds_per_second": rate}
