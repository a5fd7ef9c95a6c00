"""Writers of what a training does, and the figures that they show."""

from asrlib.tracking.figures import curves_figure, spectrogram_figure
from asrlib.tracking.local import LocalWriter
from asrlib.tracking.writer import Writer, Writers

__all__ = ["LocalWriter", "Writer", "Writers", "curves_figure", "spectrogram_figure"]
