"""Does training on a device do what it does on a CPU in float32? The checks of ``bench.gpu_check``."""

import tempfile
from functools import cache
from pathlib import Path

import torch

from asrlib.augmentations import SpectrogramAugmentations
from asrlib.build import build_named
from asrlib.configs import compose
from asrlib.files import read_jsonl
from asrlib.model import LogMel
from asrlib.model.masking import length_mask
from asrlib.training import build_trainer, step, train

# What may differ, relative to the CPU, but for FEATURES: about ten times what fewer bits come to on a
# CPU itself. A GPU convolves float32 with ten bits of mantissa (TF32), as many as float16 has.
FEATURES = (
    0.01  # in standard deviations of a mel bin: the quiet ones are differences of large numbers
)
LOSS = {"fp32": 1e-3, "fp16": 1e-3, "bf16": 5e-3}
NORM = {"fp32": 5e-3, "fp16": 5e-3, "bf16": 2e-2}
CURVE = 2e-3


def overrides(root: Path, run_dir: Path | str, model: str, size: str, *more: str) -> list[str]:
    """A training on ``root/{train,dev}`` without any draw, but for the weights it begins with."""
    return [
        "datasets=an4",
        f"datasets.root={root}",
        f"run_dir={run_dir}",
        f"model={model}",
        f"model.size={size}",
        "model.dropout=0",
        "augmentations=none",
        # one rate throughout: a schedule would not wait for steps that float16 leaves out
        "lr_scheduler=one_cycle",
        "lr_scheduler.initial=1",
        "lr_scheduler.final=1",
        "trainer.batch_seconds=1e6",
        "trainer.log_every=1",
        "trainer.log_samples=1",
        *more,
    ]


@torch.no_grad()
def features_and_masks(device: torch.device, batch: dict) -> dict:
    """Log-mel features, masks of lengths and SpecAugment's masks, on the device and on the CPU."""
    audio, lengths, ids = batch["audio"], batch["audio_length"], batch["utterance_id"]
    expected, frames = LogMel()(audio, lengths)
    found, _ = LogMel().to(device)(audio.to(device), lengths)
    difference = float((found.cpu() - expected).abs().max())
    section = compose("train", "augmentations=default").augmentations.spectrogram
    augment = SpectrogramAugmentations(build_named(section), seed=0)
    here, there = (
        (length_mask(frames, x.shape[-1], x.device), augment(x, frames, 0, ids))
        for x in (expected, expected.to(device))
    )
    equal = all(torch.equal(a, b.cpu()) for a, b in zip(here, there, strict=True))
    return {"difference": difference, "equal_masks": equal, "ok": equal and difference < FEATURES}


def one_step(
    device: torch.device, root: Path, model: str, size: str, precision: str, *more: str
) -> dict:
    """How far loss and gradient norm of the first step, with ``more`` options, are from the CPU's in
    float32."""
    expected = _first_step(root, model, size, "cpu", "fp32")
    found = _first_step(root, model, size, str(device), precision, *more)
    loss, norm = (abs(found[key] / expected[key] - 1) for key in ("loss", "grad_norm"))
    return {
        "model": model,
        "size": size,
        "precision": precision,
        "loss_difference": loss,
        "grad_norm_difference": norm,
        "ok": loss < LOSS[precision] and norm < NORM[precision],
    }


@cache
def _first_step(root: Path, model: str, size: str, device: str, precision: str, *more: str) -> dict:
    """What the trainer measures of it."""
    with tempfile.TemporaryDirectory() as run_dir:
        more += (f"trainer.device={device}", f"trainer.precision={precision}")
        more += ("trainer.num_workers=0",)
        trainer = build_trainer(compose("train", *overrides(root, run_dir, model, size, *more)))
        trainer._set_precision()
        trainer.model.train()
        batches = [next(iter(trainer.train_loader))]
        while (found := step.take(trainer, batches)) is None:  # float16 looks for its scale
            pass
        trainer.writer.close()
    return found


class ByHeart:
    """Trainings of ``steps`` steps on one batch, whose losses are compared with the CPU's in float32."""

    def __init__(self, root: Path, folder: Path, steps: int):
        self.root, self.folder, self.steps = root, folder, steps
        self.expected: list[float] = []

    def on_the_cpu(self) -> dict:
        self.expected, row = self._train("cpu", "fp32", "reference")
        return row | {"on": "cpu"}

    def on(self, device: torch.device, precision: str, *more: str) -> dict:
        """``curve_difference`` is the greatest one of means over a tenth of the losses; the CPU's first
        loss is 1."""
        losses, row = self._train(str(device), precision, "-".join((precision, *more)), *more)
        count = min(len(losses), len(self.expected))
        size = max(1, count // 10)
        ours, theirs = (
            [sum(x[i : i + size]) / size for i in range(0, count - size + 1, size)]
            for x in (losses, self.expected)
        )
        difference = max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / self.expected[0]
        ok = row["steps"] >= self.steps and difference < CURVE
        return row | {"curve_difference": difference, "ok": ok}

    def _train(
        self, device: str, precision: str, name: str, *more: str
    ) -> tuple[list[float], dict]:
        """(the loss of each step, what a row says of them)"""
        epochs = self.steps + self.steps // 20 + 4  # float16 leaves steps out to find its scale
        more += (f"trainer.device={device}", f"trainer.precision={precision}")
        more += (f"trainer.epochs={epochs}", f"trainer.eval_every={epochs}")
        run_dir = self.folder / name
        progress = train(
            compose("train", *overrides(self.root, run_dir, "conformer", "xxs", *more))
        )
        rows = read_jsonl(run_dir / "logs" / "metrics.jsonl")
        losses = [row["loss_train"] for row in rows if "loss_train" in row]
        return losses, {
            "precision": precision,
            "steps": progress.step,
            "steps_left_out": epochs - progress.step,
            "loss_scale": progress.loss_scale.get("scale"),
            "audio_seconds": progress.audio_seconds,
            "first_loss": losses[0],
            "last_loss": losses[-1],
        }
