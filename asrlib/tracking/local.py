"""The writer that is always on: plain files below the run's folder, which the report reads.

| file | what |
|---|---|
| ``logs/metrics.jsonl`` | one object a line: ``step``, and scalars by name |
| ``logs/NAME-STEP.jsonl`` | a table, one row a line |
| ``logs/NAME-STEP.png`` | a figure |
| ``logs/NAME-STEP.flac`` | audio, 16 kHz |
| ``logs/learning_curves.png`` | losses and error rates by step, when the training ends or stops |
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from matplotlib.figure import Figure

from asrlib.data import SAMPLE_RATE
from asrlib.files import read_jsonl, write_atomically, write_jsonl
from asrlib.tracking.figures import curves_figure


class LocalWriter:
    """Writes below ``run_dir / "logs"``."""

    def __init__(self, run_dir: Path | str):
        self.folder = Path(run_dir) / "logs"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.metrics = self.folder / "metrics.jsonl"

    def rewind(self, step: int, rows: float) -> None:
        """Keeps the first ``rows`` rows of scalars, and of these none after ``step``."""
        if self.metrics.exists():
            lines = self.metrics.read_text().splitlines(keepends=True)
            kept = (line for i, line in enumerate(lines) if i < rows and _step(line) <= step)
            write_atomically(self.metrics, "".join(kept))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        try:
            with self.metrics.open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:  # which does not name the file
            raise OSError(f"{self.metrics} could not be written: {error}") from error

    def table(self, step: int, name: str, rows: Sequence[dict]) -> None:
        write_jsonl(self._path(step, name, "jsonl"), rows)

    def figure(self, step: int, name: str, figure: Figure) -> None:
        figure.savefig(self._path(step, name, "png"), dpi=100)

    def audio(self, step: int, name: str, samples: np.ndarray) -> None:
        """float32 [S] at 16 kHz; what is beyond full scale is clipped."""
        encoded, samples = io.BytesIO(), np.clip(samples, -1.0, 1.0)
        soundfile.write(encoded, samples, SAMPLE_RATE, format="FLAC")
        write_atomically(self._path(step, name, "flac"), encoded.getvalue())

    def close(self) -> None:
        """Draws the learning curves; all else is written already."""
        if self.metrics.exists():
            curves_figure(read_jsonl(self.metrics)).savefig(
                self.folder / "learning_curves.png", dpi=100
            )

    def _path(self, step: int, name: str, suffix: str) -> Path:
        return self.folder / f"{name}-{step:07d}.{suffix}"


def _step(row: str) -> float:
    try:
        return json.loads(row)["step"]
    except (json.JSONDecodeError, KeyError):  # a line cut short when the run was killed
        return float("inf")
