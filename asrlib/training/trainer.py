"""The training loop. It knows no model, text encoder or augmentation by name.

Design choices:

* One step may accumulate several batches; its gradient is the sum of their losses over the sum of
  their counts, so that how an epoch is cut into batches does not weigh utterances.
* Every draw depends on (seed, step or epoch, name), the learning rate on progress: a checkpoint
  holds no random state and no scheduler.
* The gradient norm is measured before clipping, and without the scale of a float16 loss.
* Selection is by WER on dev (``val``), then CER. Where weights are averaged, it is their average that
  is evaluated, while training goes on with the raw ones.
"""

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader
from tqdm import tqdm

from asrlib.augmentations import SpectrogramAugmentations
from asrlib.data import SAMPLE_RATE
from asrlib.files import write_jsonl
from asrlib.model import AcousticModel, CTCLoss
from asrlib.randomness import torch_seed
from asrlib.text import CTCTextEncoder
from asrlib.tracking import Writer
from asrlib.tracking.errors import HYPOTHESES
from asrlib.training import saving
from asrlib.training.averaging import WeightAverage
from asrlib.training.evaluation import Decoder, evaluate
from asrlib.training.precision import Precision, choose_precision
from asrlib.training.samples import log_samples
from asrlib.training.state import Progress, TrainerOptions
from asrlib.training.transfer import freeze


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
        self.average = WeightAverage(model.encoder, options.average) if options.average else None
        self._base_rates = [group["lr"] for group in optimizer.param_groups]

    def train(self) -> Progress:
        """Trains to the end of the last epoch, or until dev stops getting better."""
        try:
            if (name := saving.resume(self)) is not None:
                _tell(f"going on from {name}, after epoch {self.progress.epoch}")
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
                saving.save(self, is_best)
            else:
                self.progress.train_seconds += time.monotonic() - started

    def _train_epoch(self, epoch: int) -> None:
        self.model.train()
        freeze(self.model.encoder, self.options.freeze)
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
        total, parts, samples = 0.0, Counter(), 0
        for batch in batches:
            augment = partial(self.augmentations, epoch=epoch, utterance_ids=batch["utterance_id"])
            views = [partial(augment, view=view) for view in range(self.criterion.views)]
            audio = batch["audio"].to(self.model.device, non_blocking=True)
            with self.precision.autocast():
                output = self.model(audio, batch["audio_length"], *views)
            loss = self.criterion(batch | output)
            self.precision.scaler.scale(loss.total / count).backward()
            total += loss.total.item()
            parts.update({name: part.item() for name, part in loss.parts.items()})
            samples += int(batch["audio_length"].sum()) * len(views)
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
        if self.average is not None:
            self.average.update()
        losses = {f"loss_{name}": part / count for name, part in parts.items()}
        measured = {"loss": total / count, "grad_norm": norm, "seconds": samples / SAMPLE_RATE}
        return measured | losses

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
        mean = {name: sum(m[name] for m in measured) / len(measured) for name in measured[0]}
        throughput = mean.pop("seconds") * len(measured) / elapsed
        self.writer.scalars(
            self.progress.step,
            {
                "epoch": round(epoch, 4),
                **{f"{name}_train": value for name, value in mean.items()},
                "learning_rate_train": self.optimizer.param_groups[0]["lr"],
                "audio_seconds_per_second_train": throughput,
            },
        )

    def _validate(self) -> bool:
        """Evaluates on dev, logs, and says whether this is the best so far."""
        progress = self.progress
        with nullcontext() if self.average is None else self.average.applied():
            evaluation = evaluate(
                self.val_loader, self.model, self.decoder, self.text_encoder, self.criterion, "dev"
            )
            log_samples(self)
        errors = evaluation.errors
        if not errors.words.reference:
            raise ValueError("dev has no transcripts, and without them nothing can be selected")
        losses = {f"loss_{name}_val": part for name, part in evaluation.loss_parts.items()}
        scores = {"loss_val": evaluation.loss, "WER_val": errors.wer, "CER_val": errors.cer}
        self.writer.scalars(progress.step, {"epoch": progress.epoch, **scores, **losses})
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
