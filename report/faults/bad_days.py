"""Trainings that go on without what cannot be learned from, and several processes."""

import math
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO

import torch

from asrlib.training import train, watch
from asrlib.training.stopping import STATUS
from report.faults.bench import Bench, error_of, is_same
from tests.processes import Strike, Training
from tests.survival import log


def not_finite(bench: Bench) -> dict:
    trainer = bench.trainer(run_dir := bench.folder("nan"))
    batches = trainer.train_loader

    class Poisoned:
        """One batch in three is full of NaN."""

        dataset, batch_sampler = batches.dataset, batches.batch_sampler

        def __iter__(self):
            for number, batch in enumerate(batches):
                if number % 3 == 0:
                    batch["audio"] = torch.full_like(batch["audio"], math.nan)
                yield batch

    trainer.train_loader = Poisoned()
    progress = trainer.train()
    finite = all(p.isfinite().all() for p in trainer.model.parameters())
    hopeless = bench.trainer(bench.folder("hopeless"), "trainer.max_bad_steps=3")
    with torch.no_grad():
        hopeless.model.encoder.head.bias.fill_(math.nan)
    told = error_of(hopeless.train, FloatingPointError)
    saved = len(list((run_dir / "bad_batches").glob("*/batch.safetensors")))
    count = progress.bad_steps[watch.NOT_FINITE]
    return {
        "injected": "NaN in one batch of three; then in the weights, so that no batch is of use",
        "kept": "weights: the steps are left out, counted, their batches saved; the second stops with advice",
        "held": bool(finite) and progress.finished and saved == count > 1 and bool(told),
        "seen": {
            "steps left out": count,
            "batches saved": saved,
            "steps taken": progress.step,
            "error of the second": told.replace(str(bench.root), "…"),
        },
    }


def without_memory(most: int) -> Callable:
    """In training has memory for so many values of a spectrogram."""

    def check(encoder, inputs):
        if encoder.training and inputs[0].numel() > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return check


def memory(bench: Bench) -> dict:
    sizes = []

    def note(encoder, inputs):
        if encoder.training:
            sizes.append(inputs[0].numel())

    probe = bench.trainer(bench.folder("probe"), "trainer.epochs=1")
    probe.model.encoder.register_forward_pre_hook(note)
    probe.train()
    most = sorted(sizes)[-2]

    trainer = bench.trainer(bench.folder("memory"), "trainer.try_worst=false")
    trainer.model.encoder.register_forward_pre_hook(without_memory(most))
    with redirect_stdout(StringIO()) as output:
        progress = trainer.train()
    told = [line for line in output.getvalue().splitlines() if watch.MEMORY in line]
    first = bench.trainer(bench.folder("worst"), "trainer.try_worst=true")
    first.model.encoder.register_forward_pre_hook(without_memory(1000))
    error = error_of(first.train, MemoryError)
    return {
        "injected": "PyTorch's error for it, raised in the forward pass of the largest batches; then of the "
        "worst batches, which are tried before training",
        "kept": "the training without these steps, which are counted, their shapes told; the second stops "
        "before its first step",
        "held": progress.finished and len(told) >= 1 and "before training" in error,
        "seen": {"told": told, "error of the second": error, "steps taken": progress.step},
    }


def corrupt(bench: Bench) -> dict:
    root = shutil.copytree(bench.corpus, bench.root / "corrupt")
    trainer = bench.trainer(bench.folder("audio"), f"datasets.root={root}")
    first, second, *_ = sorted((root / "train/audio").iterdir())
    first.write_bytes(b"no audio any more")
    second.unlink()
    progress = trainer.train()
    return {
        "injected": "after the start, one recording overwritten and one deleted",
        "kept": "the training with all others; both are named with the reason, and listed in state.json",
        "held": progress.finished and set(progress.unreadable) == {first.stem, second.stem},
        "seen": {id: why.replace(str(bench.root), "…") for id, why in progress.unreadable.items()},
    }


def worker_dies(bench: Bench) -> dict:
    trainer = bench.trainer(run_dir := bench.folder("worker"), "trainer.num_workers=2")
    lives = bench.folder("lives")
    for epoch in range(2):
        (lives / str(epoch)).touch()
    dataset = trainer.train_loader.dataset
    read = type(dataset).__getitem__

    class Deadly(type(dataset)):
        """Reading utterance 3 kills the worker, once in each of two epochs."""

        def __getitem__(self, key):
            if key[1] == 3 and (lives / str(key[0])).exists():
                (lives / str(key[0])).unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            return read(self, key)

    dataset.__class__ = Deadly
    trainer.train()
    return {
        "injected": "SIGKILL to one of 2 workers, in each of two epochs",
        "kept": "the same run: new workers go on from the batch that was due",
        "held": not list(lives.iterdir()) and is_same(run_dir, bench.whole),
        "seen": {"workers killed": 2 - len(list(lives.iterdir()))},
    }


def one_of_two(bench: Bench) -> dict:
    whole = bench.folder("two")
    Training(bench.options(whole), whole / "output", size=2).wait()
    seen, held = {}, True
    for number in (signal.SIGTERM, signal.SIGKILL):
        run_dir = bench.folder(f"two-{number.name}")
        sitting = bench.options(run_dir, "trainer.save_every_minutes=1e-9")
        strike = Strike(8_000, signal=number)
        statuses = Training(sitting, run_dir / "output", strike, size=2).wait()
        ended = 0 not in statuses and (number != signal.SIGTERM or statuses == [STATUS] * 2)
        Training(bench.options(run_dir), run_dir / "output", size=2).wait()
        held = held and ended and is_same(run_dir, whole)
        seen[f"statuses after {number.name}"] = statuses
    return {
        "injected": "SIGTERM, in another run SIGKILL, to the second of two processes (gloo, CPU)",
        "kept": f"SIGTERM stops both with a checkpoint and status {STATUS}, SIGKILL ends both; started "
        "again, two processes make the same run as two that nothing interrupted",
        "held": held,
        "seen": seen,
    }


def two_are_one(bench: Bench) -> dict:
    quiet = [
        "model.dropout=0",
        "trainer.precision=fp32",
        "optimizer.lr=3e-3",
        "trainer.log_every=1",
    ]
    one, two = bench.folder("accumulated"), bench.folder("shared")
    train(bench.config(one, *quiet, "trainer.accumulate=2"))
    Training(bench.options(two, *quiet), two / "output", size=2).wait()
    rows = list(zip(log(one), log(two), strict=True))
    losses = [(a["loss_train"], b["loss_train"]) for a, b in rows if "loss_train" in a]
    most = max(abs(a - b) / a for a, b in losses)
    dev = [
        (a["WER_val"], a["CER_val"]) == (b["WER_val"], b["CER_val"])
        for a, b in rows
        if "WER_val" in a
    ]
    return {
        "injected": "two processes with a batch each, against one that accumulates two; without dropout",
        "kept": "the loss curve to float tolerance (1e-4), WER and CER on dev exactly",
        "held": most < 1e-4 and all(dev),
        "seen": {"steps": len(losses), "largest relative difference of a loss": most},
    }


FAULTS = {
    "loss not finite": not_finite,
    "out of memory": memory,
    "recordings that cannot be read any more": corrupt,
    "a worker of the loader dies": worker_dies,
    "one of two processes is stopped or killed": one_of_two,
    "none: two processes instead of one": two_are_one,
}
