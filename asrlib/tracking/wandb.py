"""Weights & Biases, online or offline.

The mode is wandb's own: ``WANDB_MODE`` or the option ``mode``. Without a key it would ask for one on
the terminal, and hang where nobody sits at it; here that is an error with its remedy.
"""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from asrlib.data import SAMPLE_RATE
from asrlib.files import write_atomically

FINISH_SECONDS = 300  # wandb's own default waits for ever, and Kaggle's session ends before
INSTEAD = "or log offline (WANDB_MODE=offline) and `wandb sync` later; or train with writer=local"


class WandBWriter:
    """Logs to one W&B run, which a resumed training goes on with.

    Args:
        run_dir: of the training; wandb's files go below it, and the run's id is kept there.
        settings: logged as the run's configuration.
        project, name: as W&B shows them.
        mode: "online" or "offline"; ``WANDB_MODE`` wins where it is set.

    Raises:
        ImportError: wandb is not installed.
        RuntimeError: online, but there is no key, or W&B cannot be reached.
    """

    def __init__(self, run_dir: Path | str, settings: dict, project: str, name: str, mode: str):
        import wandb  # a slow import, needed by this writer alone

        mode = os.environ.get("WANDB_MODE", mode)
        if mode == "online" and not wandb.api.api_key:
            raise RuntimeError(f"no W&B key: set WANDB_API_KEY or run `wandb login`; {INSTEAD}")
        run_dir = Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        id_file = run_dir / "wandb_run_id"
        if not id_file.exists():
            write_atomically(id_file, secrets.token_hex(4))
        self._wandb = wandb
        limits = wandb.Settings()
        if hasattr(limits, "finish_timeout"):  # an older wandb has none
            limits.finish_timeout = FINISH_SECONDS
        try:
            self._run = wandb.init(
                dir=str(run_dir),
                id=id_file.read_text(),
                resume="allow",
                project=project,
                name=name,
                config=settings,
                mode=mode,
                settings=limits,
            )
        except wandb.errors.CommError as error:
            raise RuntimeError(f"W&B cannot be reached ({error}): try again; {INSTEAD}") from error

    def rewind(self, step: int, rows: float) -> None:
        """W&B keeps what was logged after ``step``, and refuses to log it a second time."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._log(step, values)

    def table(self, step: int, name: str, rows: Sequence[dict]) -> None:
        columns = list(rows[0]) if rows else []
        data = [[row[column] for column in columns] for row in rows]
        self._log(step, {name: self._wandb.Table(columns=columns, data=data)})

    def figure(self, step: int, name: str, figure: Figure) -> None:
        figure.canvas.draw()  # as an array: given a figure, wandb wants pyplot's global state
        pixels = np.asarray(figure.canvas.buffer_rgba())
        self._log(step, {name: self._wandb.Image(pixels)})

    def audio(self, step: int, name: str, samples: np.ndarray) -> None:
        audio = self._wandb.Audio(np.clip(samples, -1.0, 1.0), sample_rate=SAMPLE_RATE)
        self._log(step, {name: audio})

    def _log(self, step: int, values: dict) -> None:
        # a run that goes on begins after the last step that W&B has, and drops what comes for that one: the
        # evaluation before which it was stopped
        self._run.log(values, step=max(step, self._run.step))

    def close(self) -> None:
        """Waits until all is uploaded; without a network, for ``FINISH_SECONDS``: wandb's folder keeps the
        rest."""
        self._run.finish()
