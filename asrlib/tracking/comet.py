"""CometML, online or offline: a thin adapter. The package comet-ml is optional."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from matplotlib.figure import Figure

from asrlib.data import SAMPLE_RATE
from asrlib.files import write_atomically

INSTEAD = (
    "or log offline (writer.others.comet.mode=offline) and `comet upload` later; "
    "or train with writer=local"
)


class CometMLWriter:
    """Logs to one CometML experiment, which a resumed training goes on with.

    Args:
        run_dir: of the training; offline archives go below it, and the experiment's key is kept there.
        settings: logged as the experiment's parameters.
        project, name: as CometML shows them.
        mode: "online" or "offline".

    Raises:
        ImportError: comet-ml is not installed.
        RuntimeError: online, but there is no key, or CometML cannot be reached.
    """

    def __init__(self, run_dir: Path | str, settings: dict, project: str, name: str, mode: str):
        offline = mode == "offline"
        if offline:  # reporting its own errors is network too
            os.environ.setdefault("COMET_ERROR_TRACKING_ENABLE", "false")
        os.environ.setdefault("COMET_LOGGING_CONSOLE", "ERROR")
        try:
            import comet_ml
        except ImportError as error:
            raise ImportError("writer=cometml needs `pip install comet-ml`") from error
        if not offline and not comet_ml.config.get_config("comet.api_key"):
            raise RuntimeError(f"no CometML key: set COMET_API_KEY; {INSTEAD}")
        run_dir = Path(run_dir)
        self._folder = run_dir / "comet"
        self._folder.mkdir(parents=True, exist_ok=True)
        key_file = run_dir / "comet_experiment_key"
        known = key_file.exists()
        if not known:
            write_atomically(key_file, comet_ml.generate_guid())
        options = comet_ml.ExperimentConfig(
            name=name,
            offline_directory=str(self._folder),
            log_code=False,
            log_git_metadata=False,
            auto_output_logging=False,
            display_summary_level=0,
        )
        try:
            self._experiment = comet_ml.start(
                online=not offline,
                experiment_key=key_file.read_text(),
                mode="get_or_create" if known else "create",
                project_name=project,
                experiment_config=options,
            )
        except OSError as error:  # as the errors of requests are
            raise RuntimeError(
                f"CometML cannot be reached ({error}): try again; {INSTEAD}"
            ) from error
        self._experiment.log_parameters(settings)

    def rewind(self, step: int, rows: float) -> None:
        """CometML keeps what was logged after ``step``; the newer value of a step wins in charts."""

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self._experiment.log_metrics(values, step=step)

    def table(self, step: int, name: str, rows: Sequence[dict]) -> None:
        columns = list(rows[0]) if rows else []
        data = [[row[column] for column in columns] for row in rows]
        self._experiment.log_table(f"{name}-{step:07d}.csv", data, headers=columns)

    def figure(self, step: int, name: str, figure: Figure) -> None:
        self._experiment.log_figure(name, figure, step=step)

    def audio(self, step: int, name: str, samples: np.ndarray) -> None:
        # by file: of an array, comet-ml's offline archive keeps an empty one
        path = self._folder / f"{name}-{step:07d}.wav"
        soundfile.write(path, np.clip(samples, -1.0, 1.0), SAMPLE_RATE)
        self._experiment.log_audio(str(path), file_name=path.name, step=step)

    def close(self) -> None:
        self._experiment.end()
