"""How the error rate depends on the weights, as a heat map."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from asrlib.decoding.grid import Grid, Scored

MOST_NUMBERS = 150  # cells, beyond which their numbers would not be legible


def grid_figure(grid: Grid, best: Scored, data: str, greedy_wer: float) -> Figure:
    """WER over α × β at the width and the weights of the prior and of labels of ``best``.

    Cells are the grid, dots the points between them.

    Args:
        data: the name of what was decoded, such as "demo val".
        greedy_wer: percent, for comparison.
    """
    width, prior, labels = best.point[2:]
    wers = {
        (p.alpha, p.beta): s.sums()[0].rate
        for p, s in grid.scored.items()
        if p[2:] == best.point[2:]
    }
    cells = np.array([[wers[alpha, beta] for alpha in grid.alphas] for beta in grid.betas])
    # a few hopeless corners must not take all the colours
    colours = Normalize(min(wers.values()), max(np.quantile(cells, 0.6), min(wers.values()) + 1e-3))
    figure = Figure(
        figsize=(3 + 0.8 * max(len(grid.alphas), 4), 2.2 + 0.55 * max(len(grid.betas), 4)),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    x, y = _edges(grid.alphas), _edges(grid.betas)
    image = axes.pcolormesh(x, y, cells, cmap="viridis_r", norm=colours, edgecolor="w", linewidth=1)
    if cells.size <= MOST_NUMBERS:
        for (row, column), wer in np.ndenumerate(cells):
            axes.text(
                *(grid.alphas[column], grid.betas[row], f"{wer:.1f}"),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if colours(wer) > 0.45 else "black",
            )
    between = [at for at in wers if not (at[0] in grid.alphas and at[1] in grid.betas)]
    if between:
        axes.scatter(
            *zip(*between, strict=True),
            c=[wers[at] for at in between],
            cmap="viridis_r",
            norm=colours,
            s=45,
            edgecolor="black",
            linewidth=0.8,
            label="tried halfway, around the best",
        )
        figure.legend(loc="outside lower right", fontsize=8, frameon=False)
    _mark(axes, best, x, y, on_cell=best.point[:2] not in between)
    axes.set(xlabel="α, weight of the language model", ylabel="β, added for each word")
    axes.set_xticks(grid.alphas, [f"{alpha:g}" for alpha in grid.alphas])
    axes.set_yticks(grid.betas, [f"{beta:g}" for beta in grid.betas])
    axes.set_title(
        f"best {best.sums()[0].rate:.2f} % at α = {best.point.alpha:g}, β = {best.point.beta:g}, "
        f"beam width {width}{f', prior {prior:g}' * bool(prior)}{f', labels {labels:g}' * bool(labels)}; "
        f"greedy {greedy_wer:.2f} %",
        fontsize=10,
    )
    figure.colorbar(image, ax=axes, label=f"WER, % on {data}", extend="max")
    return figure


def _mark(axes, best: Scored, x: np.ndarray, y: np.ndarray, on_cell: bool) -> None:
    """A red frame around the best cell, or a red ring around the best dot."""
    alpha, beta = best.point[:2]
    if on_cell:
        column, row = np.searchsorted(x, alpha) - 1, np.searchsorted(y, beta) - 1
        size = x[column + 1] - x[column], y[row + 1] - y[row]
        frame = Rectangle((x[column], y[row]), *size, fill=False, edgecolor="red", linewidth=2.5)
        frame.set_clip_on(False)  # on the border half of the line lies outside
        axes.add_patch(frame)
        return
    axes.scatter([alpha], [beta], s=150, facecolor="none", edgecolor="red", linewidth=2.5)
    axes.annotate(
        f"{best.sums()[0].rate:.1f}",
        (alpha, beta),
        xytext=(0, 11),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        fontweight="bold",
        color="red",
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
    )


def _edges(values: Sequence[float]) -> np.ndarray:
    """Borders of the cells [n + 1] around ``values`` [n], halfway between them."""
    values = np.asarray(values, dtype=float)
    if len(values) == 1:
        return values[0] + np.array([-0.5, 0.5])
    middles = (values[:-1] + values[1:]) / 2
    return np.concatenate(([2 * values[0] - middles[0]], middles, [2 * values[-1] - middles[-1]]))


def png(figure: Figure) -> bytes:
    """The figure as a file's content."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
