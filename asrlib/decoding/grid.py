"""Error rates of a decoder over a grid of weights, with the work spread over processes.

Counts are kept by utterance, so the best weights of any subset of the utterances follow from them.
"""

import itertools
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from asrlib.build import build_decoder
from asrlib.cores import usable_cores
from asrlib.data import Utterance
from asrlib.decoding.cached import LogProbs
from asrlib.metrics import Edits, score_utterance
from asrlib.text import CTCTextEncoder


class Point(NamedTuple):
    """What is tuned."""

    alpha: float
    beta: float
    beam_width: int
    prior_weight: float = 0.0
    label_weight: float = 0.0


class Scored(NamedTuple):
    """Edits of every utterance at a point: int64 [utterances, words or characters, 4 of ``Edits``]."""

    point: Point
    edits: np.ndarray
    seconds: float  # spent in decoding

    def sums(self, rows: np.ndarray | None = None) -> tuple[Edits, Edits]:
        """Words' and characters' edits of the utterances ``rows`` int64 [n], else of all."""
        edits = self.edits if rows is None else self.edits[rows]
        words, characters = edits.sum(axis=0).tolist()
        return Edits(*words), Edits(*characters)

    def rank(self, rows: np.ndarray | None = None) -> tuple:
        """Less is better: WER, then CER, then a smaller beam, then less weight."""
        words, characters = self.sums(rows)
        point = self.point
        weights = point.label_weight, point.prior_weight, point.alpha, point.beta
        return words.rate, characters.rate, point.beam_width, *weights


def count_edits(texts: Iterable[str], utterances: Sequence[Utterance]) -> np.ndarray:
    """The edits of ``Scored`` from what was heard."""
    scored = [score_utterance(u.text, text) for u, text in zip(utterances, texts, strict=True)]
    return np.array([[u.words.as_tuple(), u.characters.as_tuple()] for u in scored])


@dataclass
class Scorer:
    """Decodes and scores all utterances at a point; every process has its own.

    Args:
        section: of the decoder, whose weights may be set between calls.
        utterances: with texts and with ``log_probs``.
        speller: of the model, if it has one.
    """

    section: dict
    text_encoder: CTCTextEncoder
    log_probs: LogProbs
    utterances: list[Utterance]
    speller: nn.Module | None = None
    _decoder: Callable | None = field(default=None, init=False, repr=False)

    def __call__(self, point: Point) -> Scored:
        if self._decoder is None or self._decoder.beam_width != point.beam_width:
            self._decoder = self._build(point.beam_width)
        for name in self.section.keys() & {"alpha", "beta", "prior_weight", "label_weight"}:
            setattr(self._decoder, name, getattr(point, name))
        started = time.perf_counter()
        texts = [self.log_probs.decode(u.id, self._decoder) for u in self.utterances]
        seconds = time.perf_counter() - started
        return Scored(point, count_edits(texts, self.utterances), seconds)

    def _build(self, beam_width: int) -> Callable:
        section = self.section | {"beam_width": beam_width}
        if "processes" in section:  # the points are spread over processes, so a point has one
            section["processes"] = 1
        return build_decoder(section, self.text_encoder, self.speller)


class Grid:
    """The points scored so far, and the search among them.

    Args:
        alphas, betas, beam_widths, prior_weights, label_weights: values of the grid.
        score: yields the scores of points, in any order.
    """

    def __init__(
        self,
        alphas: Iterable[float],
        betas: Iterable[float],
        beam_widths: Iterable[int],
        score: Callable[[list[Point]], Iterator[Scored]],
        prior_weights: Iterable[float] = (0.0,),
        label_weights: Iterable[float] = (0.0,),
    ):
        self.alphas, self.betas, self.beam_widths = map(
            _axis, (alphas, betas, beam_widths), (float, float, int)
        )
        self.prior_weights, self.label_weights = (
            _axis(prior_weights, float),
            _axis(label_weights, float),
        )
        self._score = score
        self.scored: dict[Point, Scored] = {}

    def best(self, refine: int = 0, rows: np.ndarray | None = None) -> Scored:
        """The best point for the utterances ``rows`` int64 [n], else for all.

        Args:
            refine: rounds that try halfway to the neighbours of the best, at its beam width and
                weights of the prior and of labels; they never leave the grid's ranges.
        """
        alphas, betas = self.alphas, self.betas
        axes = alphas, betas, self.beam_widths, self.prior_weights, self.label_weights
        tried = self._scores(map(Point._make, itertools.product(*axes)))
        for _ in range(refine):
            best = min(tried, key=lambda scored: scored.rank(rows)).point
            alphas, betas = _halved(alphas, best.alpha), _halved(betas, best.beta)
            tried += self._scores(
                best._replace(alpha=alpha, beta=beta)
                for alpha, beta in itertools.product(
                    _around(alphas, best.alpha), _around(betas, best.beta)
                )
            )
        return min(tried, key=lambda scored: scored.rank(rows))

    def _scores(self, points: Iterable[Point]) -> list[Scored]:
        """Scores of ``points``; those that are not known yet are found first."""
        points = list(points)
        new = [point for point in points if point not in self.scored]
        # by width, since a decoder of another width is built anew
        new.sort(key=lambda point: (point.beam_width, point))
        if new:
            self.scored |= {scored.point: scored for scored in self._score(new)}
        return [self.scored[point] for point in points]

    def at_the_border(self, best: Point) -> list[str]:
        """Which options might be widened for better weights, as sentences."""
        warnings = []
        for axis, value in best._asdict().items():
            name = f"{axis}s"
            values = getattr(self, name)
            if len(values) == 1 or value not in (values[0], values[-1]):
                continue
            if value == 0 and name in ("prior_weights", "label_weights"):
                continue  # none is less
            if name == "alphas" and value == 0:
                warnings.append("alpha is 0: the language model does not help on these data")
            elif name != "beam_widths" or value == values[-1]:  # a narrower beam is only faster
                side = "below" if value == values[0] else "above"
                warnings.append(
                    f"the best {axis}, {value:g}, is on the border of the grid: "
                    f"add values {side} it to tune.{name}"
                )
        return warnings


def _axis(values: Iterable, kind: type) -> list:
    values = sorted({kind(value) for value in values})
    if not values:
        raise ValueError(
            "tune.alphas, tune.betas, tune.beam_widths, tune.prior_weights and tune.label_weights need "
            "at least one value each"
        )
    return values


def _halved(axis: list[float], value: float) -> list[float]:
    """``axis`` with the points halfway from ``value`` to its neighbours."""
    halfway = [round((value + other) / 2, 6) for other in _around(axis, value)]
    return sorted({*axis, *halfway})


def _around(axis: list[float], value: float) -> list[float]:
    """``value`` and its neighbours."""
    place = axis.index(value)
    return axis[max(place - 1, 0) : place + 2]


@contextmanager
def scoring(
    scorer: Scorer, processes: int | None = None
) -> Iterator[Callable[[list[Point]], Iterator[Scored]]]:
    """Yields what scores points for ``Grid``, in ``processes`` (else one for each core).

    A point is scored whole in one process, so their number cannot change a result. They are spawned,
    not forked: threads of torch and numba do not survive a fork, and each maps the language model
    itself.
    """
    processes = processes or usable_cores()
    if processes == 1:
        yield lambda points: map(scorer, _progress(points, len(points)))
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_install, initargs=(scorer,))

    def score(points: list[Point]) -> Iterator[Scored]:
        with _interrupts_ignored():  # by the processes started here too: Ctrl-C is for this one
            futures = [pool.submit(_score, point) for point in points]
        for future in _progress(as_completed(futures), len(points)):
            yield future.result()

    try:
        yield score
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    pool.shutdown()


_scorer: Scorer  # of this process, which _install sets when it starts


def _install(scorer: Scorer) -> None:
    global _scorer
    torch.set_num_threads(1)  # the processes are as many as the cores
    _scorer = scorer


def _score(point: Point) -> Scored:
    return _scorer(point)


def _progress(items: Iterable, total: int) -> Iterable:
    return tqdm(items, "tuning", total, unit="point", leave=False, disable=None)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
