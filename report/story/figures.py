"""The report's figures, drawn from logs and rows; each is written to ``report/figures/report``."""

import io
from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from PIL import Image

from asrlib.files import write_atomically
from asrlib.result import Result
from report.story.evidence import FIGURES, Picture, mean

COLOURS = ("#0b5fa5", "#d1495b", "#3b8544", "#8a5a9e", "#c77700", "#00798c", "#6b705c", "#b5179e")
MARKERS = "osD^"  # once all colours are used, the next
POINTS, LEAST = 200, 3  # of a smoothed curve at most; of a log that each is the mean of, at least
TICKS = [
    digit * 10.0**power for power in range(-4, 5) for digit in (1, 2, 5)
]  # of logarithmic axes


def new_figure(width: float, height: float) -> Figure:
    """A figure that is drawn off screen and belongs to no global state; inches."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    return figure


def saved(figure: Figure, name: str, alt: str) -> Picture:
    """Writes the figure to ``report/figures/report/NAME.png``, in 256 colours: half as many bytes."""
    drawn, content = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(256).save(content, format="png", optimize=True)
    picture = Picture(FIGURES / "report" / f"{name}.png", alt)
    write_atomically(picture.path, content.getvalue())
    return picture


def points(rows: Sequence[dict], name: str) -> np.ndarray:
    """[n, 2]: step and value, where it was logged."""
    return np.array([(r["step"], r[name]) for r in rows if r.get(name) is not None]).reshape(-1, 2)


def smoothed(curve: np.ndarray) -> np.ndarray:
    """[n, 2] as means of at most ``POINTS`` stretches of equal length; its first point stays."""
    pieces = np.array_split(curve[1:], min(POINTS, max(1, len(curve) // LEAST)))
    return np.array([curve[0], *(piece.mean(axis=0) for piece in pieces if len(piece))])


def training(name: str, logs: dict[str, list[dict]]) -> Picture:
    """Loss, WER on dev, learning rate and gradient norm of some trainings {label: log}, by step."""
    figure = new_figure(10, 6.4)
    (loss, error), (rate, norm) = figure.subplots(2, 2)
    for colour, (label, rows) in zip(cycle(COLOURS), logs.items(), strict=False):
        loss.plot(*smoothed(points(rows, "loss_train")).T, color=colour, lw=1, alpha=0.55)
        loss.plot(*points(rows, "loss_val").T, color=colour, marker=".", ms=4, lw=1.6, ls="--")
        error.plot(*points(rows, "WER_val").T, color=colour, marker=".", ms=6, lw=1.2, label=label)
        rate.plot(*points(rows, "learning_rate_train").T, color=colour, lw=1.2)
        norm.plot(*smoothed(points(rows, "grad_norm_train")).T, color=colour, lw=1)
    loss.set(ylabel="loss (nats per label)", title="Loss")
    error.set(ylabel="WER (%)", title="Word error rate on dev")
    rate.set(ylabel="learning rate", title="Learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-3, -3))
    norm.set(ylabel="norm", title="Gradient norm before clipping (smoothed)")
    last = max(rows[-1]["step"] for rows in logs.values())
    for axes in (loss, error, norm):
        shown = np.concatenate([line.get_ydata() for line in axes.lines])
        if shown.max(initial=0) > 3 * shown.min(initial=np.inf):  # else a linear axis tells more
            _logarithmic(axes)
            if axes is error:
                axes.set_ylim(top=130)
    for axes in (loss, error, rate, norm):
        axes.set_xlabel("step")
        axes.set_xlim(0, 1.03 * last)
        axes.grid(alpha=0.3)
    for style, label in (("-", "train (smoothed)"), ("--", "dev")):
        loss.plot([], [], color="#444", ls=style, label=label)
    loss.legend()
    if len(logs) > 1:
        lines, labels = error.get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside lower center", ncols=5, frameon=False)
    seeds = ", ".join(logs)
    return saved(figure, f"training-{name}", f"Learning curves of {name} ({seeds})")


def _logarithmic(axes: Axes) -> None:
    """With plain numbers for labels."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator(TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def decoders(corpus: str, systems: dict[str, dict[str, list[Result]]]) -> Picture:
    """WER on a corpus of models {name: {decoder: rows}}: means as points; bars are intervals, or the range of
    seeds."""
    names = list(dict.fromkeys(name for found in systems.values() for name in found))
    figure = new_figure(9, 0.75 + 0.62 * len(systems) + 0.22 * len(names))
    axes = figure.subplots()
    for place, decoder in enumerate(names):
        for height, found in enumerate(systems.values()):
            if not (rows := found.get(decoder)):
                continue
            shift = 0.7 * ([*found].index(decoder) + 0.5) / len(found) - 0.35
            middle = mean(row.wer for row in rows)
            low, high = spread(rows)
            axes.errorbar(
                middle,
                height + shift,
                xerr=[[middle - low], [high - middle]],
                fmt=MARKERS[place // len(COLOURS)],
                ms=6,
                capsize=2,
                color=COLOURS[place % len(COLOURS)],
                label=decoder
                if not any(decoder in f for f in list(systems.values())[:height])
                else None,
            )
    axes.set_yticks(range(len(systems)), list(systems))
    axes.set_ylim(len(systems) - 0.4, -0.6)
    axes.set(xlabel="WER (%)")
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower left", frameon=False)  # in one column: the names are long
    return saved(figure, f"decoders-{corpus}", f"Word error rates of every decoder on {corpus}")


def spread(rows: Sequence[Result]) -> tuple[float, float]:
    """Of one row its interval, of several the lowest and the highest WER."""
    if len(rows) == 1 and rows[0].wer_interval:
        return tuple(rows[0].wer_interval)
    return min(row.wer for row in rows), max(row.wer for row in rows)
