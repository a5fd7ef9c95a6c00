"""The training loop. It knows no model, text encoder or augmentation by name.

Design choices:

* One step may accumulate several batches; its gradient is the sum of their losses over the sum of
  their counts, so that how an epoch is cut into batches does not weigh utterances.
* Every draw depends on (seed, step or epoch, name), the learning rate on progress: a checkpoint
  holds no random state and no scheduler.
* The gradient norm is measured before clipping, and without the scale of a float16 loss.
* Selection is by WER on dev (``val``), then CER.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader
from tqdm import tqdm

from asrlib import checkpoint
from asrlib.augmentations import SpectrogramAugmentations
from asrlib.data import SAMPLE_RATE
from asrlib.files import write_jsonl
from asrlib.model import AcousticModel, CTCLoss
from asrlib.randomness import torch_seed
from asrlib.text import CTCTextEncoder
from asrlib.tracking import Writer
from asrlib.tracking.errors import HYPOTHESES
from asrlib.training.evaluation import Decoder, evaluate
from asrlib.training.precision import Precision, choose_precision
from asrlib.training.samples import log_samples


@dataclass(frozen=True)
class TrainerOptions:
    """The section ``trainer`` of the configuration."""

    epochs: int
    batch_seconds: float = 160.0  # of padded audio in a batch
    max_batch_size: int = 256
    accumulate: int = 1  # batches in a step
    max_grad_norm: float = 5.0
    eval_every: int = 1  # epochs
    early_stop: int | None = None  # evaluations without a better WER on dev
    log_every: int = 10  # steps
    log_samples: int = 10  # random utterances of train and dev in the tables
    keep_checkpoints: int = 2
    num_workers: int = 1
    device: str = "auto"
    precision: str = "auto"  # of autocast: fp32, bf16 or fp16; auto is the fastest on the device
    resume: bool = True

    def __post_init__(self):
        for name in ("epochs", "batch_seconds", "accumulate", "eval_every", "log_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"trainer.{name} must be positive, not {getattr(self, name)}")


@dataclass
class Progress:
    """Where a training stands: all that ``state.json`` needs beside weights and optimiser."""

    epoch: int = 0  # epochs completed
    step: int = 0  # optimiser steps taken
    best_wer: float = math.inf
    best_cer: float = math.inf
    best_epoch: int = 0
    evaluations_since_best: int = 0
    audio_seconds: float = 0.0  # seen in training, after changes of speed, without padding
    train_seconds: float = 0.0  # wall time, evaluation included
    finished: bool = False
    command: str = ""
    precision: str = ""  # in which it began, and goes on
    loss_scale: dict = field(default_factory=dict)  # of fp16
    infeasible: dict[str, int] = field(default_factory=dict)  # utterance id: times left out
    unreadable: dict[str, str] = field(default_factory=dict)  # utterance id: reason


class Trainer:
    """Trains ``model`` on ``train_loader`` and keeps what is best on ``val_loader``.

    Args:
        config: the resolved configuration, kept in every checkpoint.
        schedule: progress in [0, 1] → factor of each parameter group's learning rate.
        run_dir: where checkpoints and logs go, and where a training that was stopped goes on from.
    """

    def __init__(
        self,
        config: DictConfig,
        options: TrainerOptions,
        model: AcousticModel,
        text_encoder: CTCTextEncoder,
        criterion: CTCLoss,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[float], float],
        decoder: Decoder,
        augmentations: SpectrogramAugmentations,
        train_loader: DataLoader,
        val_loader: DataLoader,
        writer: Writer,
        run_dir: Path,
        seed: int,
    ):
        self.config, self.options = config, options
        self.model, self.text_encoder, self.criterion = model, text_encoder, criterion
        self.optimizer, self.schedule, self.decoder = optimizer, schedule, decoder
        self.augmentations = augmentations
        self.train_loader, self.val_loader = train_loader, val_loader
        self.writer, self.seed = writer, seed
        self.run_dir, self.checkpoints = run_dir, run_dir / "checkpoints"
        self.progress = Progress()
        self.precision = Precision("fp32", model.device)
        self._base_rates = [group["lr"] for group in optimizer.param_groups]

    def train(self) -> Progress:
        """Trains to the end of the last epoch, or until dev stops getting better."""
        try:
            self._resume()
            self._set_precision()
            self._train()
        finally:
            self.writer.close()
        return self.progress

    def _train(self) -> None:
        options = self.options
        while self.progress.epoch < options.epochs and not self.progress.finished:
            started = time.monotonic()
            self._train_epoch(self.progress.epoch)
            self.progress.epoch += 1
            last = self.progress.epoch == options.epochs
            if last or self.progress.epoch % options.eval_every == 0:
                is_best = self._validate()
                waited = self.progress.evaluations_since_best
                stop = options.early_stop is not None and waited >= options.early_stop
                self.progress.finished = last or stop
                self.progress.train_seconds += time.monotonic() - started
                self._save(is_best)
            else:
                self.progress.train_seconds += time.monotonic() - started

    def _train_epoch(self, epoch: int) -> None:
        self.model.train()
        sampler = self.train_loader.batch_sampler
        sampler.set_epoch(epoch)
        total = math.ceil(len(sampler) / self.options.accumulate)
        groups = _groups(self.train_loader, self.options.accumulate)
        bar = tqdm(
            groups, total=total, desc=f"epoch {epoch + 1}", unit="step", leave=False, disable=None
        )
        measured: list[dict[str, float]] = []
        window_start = time.monotonic()
        for position, batches in enumerate(bar):
            self._set_learning_rate((epoch + position / total) / self.options.epochs)
            values = self._step(epoch, batches)
            if values is None:
                continue
            measured.append(values)
            bar.set_postfix(loss=f"{values['loss']:.3f}")
            if self.progress.step % self.options.log_every == 0 or position == total - 1:
                elapsed = time.monotonic() - window_start
                self._log(epoch + (position + 1) / total, measured, elapsed)
                measured, window_start = [], time.monotonic()

    def _set_learning_rate(self, progress: float) -> None:
        factor = self.schedule(progress)
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor

    def _step(self, epoch: int, batches: list[dict]) -> dict[str, float] | None:
        """One optimiser step over ``batches``; None where nothing in them can be trained on."""
        for batch in batches:
            for item in batch["skipped"]:
                self.progress.unreadable[item.utterance.id] = item.reason
                _tell(f"left out {item.utterance.id}: {item.reason}")
        batches = [batch for batch in batches if "audio" in batch]
        frames = [self.model.output_length(batch["audio_length"]) for batch in batches]
        count = sum(map(self.criterion.count, batches, frames))
        if count == 0:
            return None
        torch.manual_seed(torch_seed(self.seed, self.progress.step, "step"))
        total, samples = 0.0, 0
        for batch in batches:
            augment = partial(self.augmentations, epoch=epoch, utterance_ids=batch["utterance_id"])
            audio = batch["audio"].to(self.model.device, non_blocking=True)
            with self.precision.autocast():
                output = self.model(audio, batch["audio_length"], augment)
            loss = self.criterion(batch | output)
            self.precision.scaler.scale(loss.total / count).backward()
            total += loss.total.item()
            samples += int(batch["audio_length"].sum())
            self._note_infeasible([batch["utterance_id"][row] for row in loss.infeasible])
        norm = self._update()
        if not math.isfinite(norm) and math.isfinite(total) and self._may_scale_less():
            return None
        if not math.isfinite(norm + total):
            ids = [id for batch in batches for id in batch["utterance_id"]]
            raise FloatingPointError(
                f"loss {total / count} and gradient norm {norm} at step {self.progress.step}, "
                f"utterances {ids}: lower optimizer.lr, or look at these recordings"
            )
        self.progress.step += 1
        self.progress.audio_seconds += samples / SAMPLE_RATE
        return {"loss": total / count, "grad_norm": norm, "seconds": samples / SAMPLE_RATE}

    def _update(self) -> float:
        """Clips, steps if all is finite, clears the gradients; returns the norm before clipping."""
        scaler, parameters = self.precision.scaler, self.model.parameters()
        scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.options.max_grad_norm).item()
        if math.isfinite(norm) or scaler.is_enabled():  # a scaler itself leaves out such a step
            scaler.step(self.optimizer)
        scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _may_scale_less(self) -> bool:
        """Whether gradients beyond float16's range are to be expected: its loss is scaled too high."""
        return self.precision.scaler.get_scale() > 1.0

    def _note_infeasible(self, ids: list[str]) -> None:
        for id in ids:
            if id not in self.progress.infeasible:
                _tell(f"left out {id}: more labels than frames for CTC")
            self.progress.infeasible[id] = self.progress.infeasible.get(id, 0) + 1

    def _log(self, epoch: float, measured: list[dict[str, float]], elapsed: float) -> None:
        mean = {k: sum(m[k] for m in measured) / len(measured) for k in ("loss", "grad_norm")}
        throughput = sum(m["seconds"] for m in measured) / elapsed
        self.writer.scalars(
            self.progress.step,
            {
                "epoch": round(epoch, 4),
                "loss_train": mean["loss"],
                "grad_norm_train": mean["grad_norm"],
                "learning_rate_train": self.optimizer.param_groups[0]["lr"],
                "audio_seconds_per_second_train": throughput,
            },
        )

    def _validate(self) -> bool:
        """Evaluates on dev, logs, and says whether this is the best so far."""
        progress = self.progress
        evaluation = evaluate(
            self.val_loader, self.model, self.decoder, self.text_encoder, self.criterion, "dev"
        )
        errors = evaluation.errors
        if not errors.words.reference:
            raise ValueError("dev has no transcripts, and without them nothing can be selected")
        scores = {"loss_val": evaluation.loss, "WER_val": errors.wer, "CER_val": errors.cer}
        self.writer.scalars(progress.step, {"epoch": progress.epoch, **scores})
        log_samples(self)
        is_best = (errors.wer, errors.cer) < (progress.best_wer, progress.best_cer)
        if is_best:
            write_jsonl(self.run_dir / HYPOTHESES, evaluation.rows())
            progress.best_wer, progress.best_cer = errors.wer, errors.cer
            progress.best_epoch, progress.evaluations_since_best = progress.epoch, 0
        else:
            progress.evaluations_since_best += 1
        _tell(
            f"epoch {progress.epoch:3d}  step {progress.step:6d}  loss_val {evaluation.loss:.3f}  "
            f"WER_val {errors.wer:6.2f} %  CER_val {errors.cer:6.2f} %{'  best' if is_best else ''}"
        )
        return is_best

    def _save(self, is_best: bool) -> None:
        self.progress.loss_scale = self.precision.scaler.state_dict()
        save = partial(
            checkpoint.save_checkpoint,
            model=self.model,
            config=self.config,
            text_encoder=self.text_encoder,
            state=asdict(self.progress),
        )
        save(self.checkpoints / f"step-{self.progress.step:08d}", optimizer=self.optimizer)
        if is_best:
            save(self.checkpoints / "best")
        checkpoint.keep_latest(self.checkpoints, self.options.keep_checkpoints)

    def _resume(self) -> None:
        latest = checkpoint.find_latest(self.checkpoints)
        if latest is None:
            return
        if not self.options.resume:
            raise FileExistsError(
                f"{self.checkpoints} holds a training and trainer.resume is false: "
                "choose another run_dir, or remove that folder"
            )
        checkpoint.load_weights(latest, self.model.encoder)
        checkpoint.load_optimizer(latest, self.optimizer)
        state = checkpoint.read_state(latest)
        state.pop("optimizer")
        self.progress = Progress(**state | {"command": self.progress.command})
        self.writer.rewind(self.progress.step)
        _tell(f"going on from {latest.name}, after epoch {self.progress.epoch}")

    def _set_precision(self) -> None:
        """As asked; "auto" is chosen when a run begins, and kept when it goes on elsewhere."""
        device, asked = self.model.device, self.options.precision
        if asked == "auto" and self.progress.precision:
            asked = self.progress.precision
        self.progress.precision = choose_precision(asked, device)
        self.precision = Precision(self.progress.precision, device)
        if self.progress.loss_scale:
            self.precision.scaler.load_state_dict(self.progress.loss_scale)
        _tell(f"computing in {self.progress.precision} on {device}")


def _tell(line: str) -> None:
    """Prints a line above the progress bar, at once also where the output is a pipe or a file."""
    tqdm.write(line)
    sys.stdout.flush()


def _groups(batches: DataLoader, size: int) -> Iterator[list[dict]]:
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group
