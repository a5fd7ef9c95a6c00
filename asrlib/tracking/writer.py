"""What a writer does, and several of them as one.

Names as in the template: a scalar is ``NAME_PART``.

| name | what | when |
|---|---|---|
| ``loss_train`` | nats per label, mean of the steps since the last row | every ``log_every`` steps |
| ``loss_ctc_PART``, ``loss_intermediate_PART`` | parts of a mixed loss, unweighted | with ``loss_PART`` |
| ``loss_phones_PART`` | likewise: CTC of the phones | likewise |
| ``loss_attention_PART`` | likewise: cross entropy of smoothed labels | likewise |
| ``loss_guidance_PART`` | likewise: −ln of the attention near CTC's times | likewise |
| ``loss_consistency_train`` | likewise; dev has one view of an utterance | with ``loss_train`` |
| ``learning_rate_train`` | of the first parameter group | every ``log_every`` steps |
| ``grad_norm_train`` | before clipping, mean | likewise |
| ``audio_seconds_per_second_train`` | throughput, padding not counted | likewise |
| ``loss_val``, ``WER_val``, ``CER_val`` | dev: nats per label; percent of the corpus | every evaluation |
| ``samples_train``, ``samples_val`` | table of random utterances: target, predict, CER, WER | likewise |
| ``attention_PART`` | of the first of them, true labels given: labels over seconds | likewise |
| ``attention_monotonicity_PART`` | share of steps that look back at no earlier frame | likewise |
| ``attention_coverage_PART`` | share of frames that got attention, ``asrlib.metrics.attention`` | likewise |
| ``spectrogram_PART``, ``audio_PART`` | the first of them as the model saw it, augmented | likewise |
| ``spectrogram_clean_train``, ``audio_clean_train`` | the same utterance before augmentation | likewise |
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from asrlib.tracking.local import LocalWriter


class Writer(Protocol):
    """Where a training tells what it does."""

    def rewind(self, step: int, rows: float) -> None:
        """Forgets, where it can, what came after ``step`` and beyond ``rows`` calls of ``scalars``:
        the training goes on from there."""

    def scalars(self, step: int, values: dict[str, float]) -> None: ...

    def table(self, step: int, name: str, rows: Sequence[dict]) -> None: ...

    def figure(self, step: int, name: str, figure: Figure) -> None: ...

    def audio(self, step: int, name: str, samples: np.ndarray) -> None:
        """float32 [S] at 16 kHz."""

    def close(self) -> None:
        """Completes what is buffered or being sent."""


class Writers:
    """The local writer, which is always on, and those beside it.

    Args:
        run_dir: of the training.
        settings: the training's configuration, for services that show it.
        others: {name: constructor of a writer, given ``run_dir`` and ``settings``}.
    """

    def __init__(self, run_dir: Path | str, settings: dict, others: Mapping | None = None):
        self.writers: list[Writer] = [LocalWriter(run_dir)]
        for make in (others or {}).values():
            self.writers.append(make(run_dir=run_dir, settings=settings))

    def rewind(self, step: int, rows: float) -> None:
        self._each("rewind", step, rows)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._each("scalars", step, values)

    def table(self, step: int, name: str, rows: Sequence[dict]) -> None:
        self._each("table", step, name, rows)

    def figure(self, step: int, name: str, figure: Figure) -> None:
        self._each("figure", step, name, figure)

    def audio(self, step: int, name: str, samples: np.ndarray) -> None:
        self._each("audio", step, name, samples)

    def close(self) -> None:
        self._each("close")

    def _each(self, method: str, *arguments) -> None:
        for writer in self.writers:
            getattr(writer, method)(*arguments)
