"""What the notebooks call: the commands of the README, and their results to look at."""

from asrlib.notebook.commands import Stopped, begin, infer, run, train, tune, writer
from asrlib.notebook.inputs import find_input
from asrlib.notebook.shows import (
    show_choices,
    show_comparison,
    show_curves,
    show_data,
    show_errors,
    show_machine,
    show_pictures,
    show_points,
    show_predictions,
    show_results,
    show_samples,
)

__all__ = [
    "Stopped",
    "begin",
    "find_input",
    "infer",
    "run",
    "show_choices",
    "show_comparison",
    "show_curves",
    "show_data",
    "show_errors",
    "show_machine",
    "show_pictures",
    "show_points",
    "show_predictions",
    "show_results",
    "show_samples",
    "train",
    "tune",
    "writer",
]
