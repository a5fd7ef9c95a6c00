"""Figures for the writers. They are drawn off screen and belong to no global state."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asrlib.data import SAMPLE_RATE
from asrlib.model.features import HOP, mel_corners

FRAMES_PER_SECOND = SAMPLE_RATE / HOP


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def spectrogram_figure(spectrogram: np.ndarray, title: str, f_min: float, f_max: float) -> Figure:
    """A log-mel spectrogram float [F, T] over seconds and hertz, whose mel bins span f_min to f_max."""
    n_mels, frames = spectrogram.shape
    figure = _figure(9, 3)
    axes = figure.add_subplot()
    image = axes.imshow(
        spectrogram,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        vmin=-2.5,  # standard deviations; a rare outlier must not take all the colours
        vmax=3.0,
        extent=(0, frames / FRAMES_PER_SECOND, -0.5, n_mels - 0.5),
    )
    ticks = np.linspace(0, n_mels - 1, 6).round().astype(int)
    peaks = mel_corners(n_mels, f_min, f_max)[1:-1]
    axes.set_yticks(ticks, [f"{peaks[t]:.0f}" for t in ticks])
    axes.set(xlabel="time (s)", ylabel="frequency (Hz)", title=title)
    figure.colorbar(image, ax=axes, label="log power (std. dev.)", extend="both")
    return figure


def attention_figure(
    attention: np.ndarray, labels: Sequence[str], seconds_per_frame: float, title: str
) -> Figure:
    """Where a speller looked: attention [U, T'] of each of U ``labels`` over seconds."""
    steps, frames = attention.shape
    figure = _figure(9, 2 + 0.14 * steps)
    axes = figure.add_subplot()
    image = axes.imshow(
        attention,
        aspect="auto",
        interpolation="nearest",
        vmin=0,
        vmax=1,
        extent=(0, frames * seconds_per_frame, steps - 0.5, -0.5),
    )
    axes.set_yticks(range(steps), [label.replace(" ", "␣") for label in labels], fontsize=7)
    axes.set(xlabel="time (s)", ylabel="label", title=title)
    figure.colorbar(image, ax=axes, label="attention")
    return figure


def curves_figure(rows: Sequence[dict]) -> Figure:
    """Learning curves from the rows of ``metrics.jsonl``: loss, and error rates on dev, by step."""
    figure = _figure(9, 3.5)
    for place, names in enumerate((("loss_train", "loss_val"), ("WER_val", "CER_val")), start=1):
        axes = figure.add_subplot(1, 2, place)
        for name in names:
            points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, marker="." * ("val" in name))
        axes.set(xlabel="step", ylabel="nats per label" if place == 1 else "percent")
        # the first steps tower over the rest: a CTC loss falls by a factor of ten in no time
        axes.set_ylim(bottom=0, top=5 if place == 1 else 102)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return figure
