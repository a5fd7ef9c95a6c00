"""The training loop. It knows no model, text encoder or augmentation by name.

Design choices:

* Every draw depends on (seed, step or epoch, name), the order of the data on the epoch, the learning
  rate on progress: a checkpoint holds no random state, no loader and no scheduler, and a training
  that was stopped anywhere goes on as if it had not been.
* Between two steps is the only place where a training can be saved or stopped.
* Selection is by WER on dev (``val``), then CER. Where weights are averaged, it is their average that
  is evaluated, while training goes on with the raw ones.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from itertools import islice
from pathlib import Path

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from asrlib.augmentations import SpectrogramAugmentations
from asrlib.build import device_name
from asrlib.data.loader import BatchLoader
from asrlib.decoding.contract import Decoder
from asrlib.files import write_jsonl
from asrlib.model import AcousticModel, CTCLoss
from asrlib.precision import Precision, choose_precision
from asrlib.text import CTCTextEncoder
from asrlib.tracking import Writer
from asrlib.tracking.errors import HYPOTHESES
from asrlib.training import saving, step, watch
from asrlib.training.averaging import WeightAverage
from asrlib.training.distributed import ALONE, World
from asrlib.training.evaluation import evaluate
from asrlib.training.samples import log_samples
from asrlib.training.state import Progress, TrainerOptions
from asrlib.training.stopping import Stopping, StopRequested
from asrlib.training.transfer import freeze
from asrlib.training.trial import try_worst_batches


class Trainer:
    """Trains ``model`` on ``train_loader`` and keeps what is best on ``val_loader``.

    Args:
        config: the resolved configuration, kept in every checkpoint.
        schedule: progress in [0, 1] → factor of each parameter group's learning rate.
        writer: None in all processes but the first.
        run_dir: where checkpoints and logs go.
        start: the checkpoint of this run from which it goes on, if there is one.
        world: this process among those that train together.
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
        train_loader: BatchLoader,
        val_loader: BatchLoader,
        writer: Writer | None,
        run_dir: Path,
        seed: int,
        start: Path | None = None,
        stopping: Stopping | None = None,
        world: World = ALONE,
    ):
        self.config, self.options = config, options
        self.model, self.text_encoder, self.criterion = model, text_encoder, criterion
        self.optimizer, self.schedule, self.decoder = optimizer, schedule, decoder
        self.augmentations = augmentations
        self.train_loader, self.val_loader = train_loader, val_loader
        self.writer, self.seed, self.start, self.world = writer, seed, start, world
        self.run_dir, self.checkpoints = run_dir, run_dir / "checkpoints"
        self.stopping = stopping or Stopping(options.max_hours)
        self.progress = Progress()
        self.precision = Precision("fp32", model.device)
        self.average = WeightAverage(model.encoder, options.average) if options.average else None
        self._base_rates = [group["lr"] for group in optimizer.param_groups]
        self._lapped = self._saved = time.monotonic()

    def train(self) -> Progress:
        """Trains to the end of the last epoch, until dev stops getting better, or until ``stopping``.

        In the last case there is a checkpoint, and ``finished`` is false in what is returned.

        Raises:
            OSError: a checkpoint or a log could not be written; older checkpoints are as they were.
            FloatingPointError, MemoryError: too many steps in a row had to be left out.
        """
        with self.stopping:
            try:
                self._train()
            except StopRequested as request:
                path = self._save()
                self.world.tell(
                    f"stopped after step {self.progress.step}, {self._epochs:.2f} epochs: {request}; "
                    f"saved in {path}, from which the same command goes on"
                )
            except BaseException:
                with suppress(Exception):  # of what went wrong, the first is told
                    self._close_writer()
                raise
            self._close_writer()
            # a launcher kills the others as soon as one process ends with a status that is not 0
            self.world.gather(None)
        return self.progress

    def _train(self) -> None:
        shortened = False
        if self.start is not None:
            saving.resume(self, self.start)
            was_finished, self.progress.finished = self.progress.finished, self._is_finished()
            shortened = self.progress.finished and not was_finished  # by what the options are now
            self.world.tell(f"going on from {self.start.name}, after {self._epochs:.2f} epochs")
        progress, options = self.progress, self.options
        if self.writer is not None:  # also of a run that never came to a checkpoint
            self.writer.rewind(progress.step, progress.rows)
        self._set_precision()
        if (name := device_name(self.model.device)) not in progress.devices:
            progress.devices.append(name)
        on_gpu = self.model.device.type == "cuda"
        if not progress.finished and (on_gpu if options.try_worst is None else options.try_worst):
            self._set_training_mode()
            try_worst_batches(self)
        self._lapped = self._saved = time.monotonic()
        if shortened and (progress.batches_done or progress.epoch % options.eval_every):
            self._save(self._validate(progress.epoch))  # of what came after the last evaluation
        while not progress.finished:
            self._train_epoch()
            epoch = progress.epoch + 1
            evaluated = epoch == options.epochs or epoch % options.eval_every == 0
            is_best = evaluated and self._validate(epoch)
            progress.epoch, progress.batches_done = epoch, 0
            progress.finished = self._is_finished()
            if evaluated:
                self._save(is_best)
            else:
                self._save_if_due()

    def _is_finished(self) -> bool:
        patience, waited = self.options.early_stop, self.progress.evaluations_since_best
        ended = self.progress.epoch >= self.options.epochs
        return ended or (patience is not None and waited >= patience)

    def _train_epoch(self) -> None:
        """Trains what is left of the epoch."""
        progress, options = self.progress, self.options
        self._set_training_mode()
        sampler = self.train_loader.batch_sampler
        sampler.set_epoch(progress.epoch, progress.batches_done)
        total = len(sampler.batches(progress.epoch))
        batches_per_step = options.accumulate * self.world.size
        whole, steps = progress.batches_done == 0, progress.step
        if whole:
            progress.measured, progress.measured_seconds = [], 0.0
        batches = iter(self.train_loader)
        with tqdm(
            total=math.ceil(total / batches_per_step),
            initial=progress.batches_done // batches_per_step,
            desc=f"epoch {progress.epoch + 1}",
            unit="step",
            leave=False,
            disable=None if self.world.is_first else True,  # None: where the output is no terminal
        ) as bar:
            while progress.batches_done < total:
                position = progress.epoch + progress.batches_done / total
                self._set_learning_rate(position / options.epochs)
                values = step.take(self, list(islice(batches, options.accumulate)))
                progress.batches_done = min(progress.batches_done + batches_per_step, total)
                progress.measured_seconds += self._lap()
                if values is not None:
                    progress.measured.append(values)
                    bar.set_postfix(loss=f"{values['loss']:.3f}")
                ended = progress.batches_done == total  # maybe with a step that was left out
                if progress.measured and (ended or progress.step % options.log_every == 0):
                    self._log(progress.epoch + progress.batches_done / total)
                bar.update()
                self._stop_for(self.stopping.reason())
                if progress.batches_done < total:  # after the last, an evaluation may come first
                    self._save_if_due()
        if whole and progress.step == steps:
            watch.require_something_to_learn(self)

    def _set_training_mode(self) -> None:
        self.model.train()
        freeze(self.model.encoder, self.options.freeze)

    def _set_learning_rate(self, progress: float) -> None:
        factor = self.schedule(progress)
        for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor

    @property
    def _epochs(self) -> float:
        """How many of them are trained."""
        if self.progress.batches_done == 0:
            return self.progress.epoch
        total = len(self.train_loader.batch_sampler.batches(self.progress.epoch))
        return self.progress.epoch + self.progress.batches_done / total

    def _lap(self) -> float:
        """Seconds since it was last called, which count as training time."""
        now = time.monotonic()
        elapsed, self._lapped = now - self._lapped, now
        self.progress.train_seconds += elapsed
        return elapsed

    def _stop_for(self, reason: str | None) -> None:
        """Raises ``StopRequested`` in all processes if one of them has a reason to stop."""
        if reasons := [reason for reason in self.world.gather(reason) if reason]:
            raise StopRequested(reasons[0])

    def _save_if_due(self) -> None:
        minutes = self.options.save_every_minutes
        if minutes is not None and time.monotonic() - self._saved >= 60 * minutes:
            self._save()

    def _save(self, is_best: bool = False) -> Path:
        self.progress.measured_seconds += self._lap()
        path = saving.save(self, is_best)
        self._saved = time.monotonic()
        return path

    def _log(self, epoch: float) -> None:
        """Writes the means of the steps since it was last called, of what is measured now."""
        measured, seconds = self.progress.measured, self.progress.measured_seconds
        found = {name: [m[name] for m in measured if name in m] for name in measured[-1]}
        mean = {name: sum(values) / len(values) for name, values in found.items()}
        throughput = mean.pop("seconds") * len(measured) / seconds
        self.progress.measured, self.progress.measured_seconds = [], 0.0
        self._write(
            {
                "epoch": round(epoch, 4),
                **{f"{name}_train": value for name, value in mean.items()},
                "learning_rate_train": self.optimizer.param_groups[0]["lr"],
                "audio_seconds_per_second_train": throughput,
            }
        )

    def _write(self, scalars: dict[str, float]) -> None:
        self.progress.rows += 1
        if self.writer is not None:
            self.writer.scalars(self.progress.step, scalars)

    def _close_writer(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _validate(self, epoch: int) -> bool:
        """Evaluates on dev after ``epoch`` epochs, logs, and says whether this is the best so far."""
        progress = self.progress
        with nullcontext() if self.average is None else self.average.applied():
            evaluation = evaluate(
                self.val_loader,
                self.model,
                self.decoder,
                self.text_encoder,
                self.criterion,
                "dev",
                self.world,
                self.stopping.signal,
            )
            # not when its time is up: a sitting that is too short for it would come to it again and again
            self._stop_for(self.stopping.signal())
            shown = log_samples(self) if self.writer is not None else {}
        self._lap()
        errors = evaluation.errors
        for item in evaluation.skipped:
            progress.unreadable[item.utterance.id] = item.reason
            self.world.tell(f"left out {item.utterance.id} of dev: {item.reason}")
        if not errors.words.reference:
            raise ValueError(
                "no recording of dev that has a transcript can be read, and without them nothing can be "
                "selected"
            )
        losses = {f"loss_{name}_val": part for name, part in evaluation.loss_parts.items()}
        scores = {"loss_val": evaluation.loss, "WER_val": errors.wer, "CER_val": errors.cer}
        self._write({"epoch": epoch, **scores, **losses, **shown})
        is_best = (errors.wer, errors.cer) < (progress.best_wer, progress.best_cer)
        if is_best:
            if self.world.is_first:
                write_jsonl(self.run_dir / HYPOTHESES, evaluation.rows())
            progress.best_wer, progress.best_cer = errors.wer, errors.cer
            progress.best_epoch, progress.evaluations_since_best = epoch, 0
        else:
            progress.evaluations_since_best += 1
        self.world.tell(
            f"epoch {epoch:3d}  step {progress.step:6d}  loss_val {evaluation.loss:.3f}  "
            f"WER_val {errors.wer:6.2f} %  CER_val {errors.cer:6.2f} %{'  best' if is_best else ''}"
        )
        return is_best

    def _set_precision(self) -> None:
        """As asked; "auto" is chosen when a run begins, and kept when it goes on elsewhere."""
        device, asked = self.model.device, self.options.precision
        if asked == "auto" and self.progress.precision:
            asked = self.progress.precision
        self.progress.precision = self.world.first(lambda: choose_precision(asked, device))
        self.precision = Precision(self.progress.precision, device)
        if self.progress.loss_scale:
            self.precision.scaler.load_state_dict(self.progress.loss_scale)
        self.world.tell(f"computing in {self.progress.precision} on {device}")
