"""How well a language model foresees a text."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Perplexity:
    """Sums over sentences; ends of sentences are foreseen, too, and count as words here.

    Attributes:
        words, sentences: of the text.
        unknown: how many of ``words`` the model does not know.
        log10, unknown_log10: decimal log probability of everything, and of the unknown words.
    """

    words: int = 0
    sentences: int = 0
    unknown: int = 0
    log10: float = 0.0
    unknown_log10: float = 0.0

    @property
    def of_all(self) -> float:
        """With unknown words at the price of ``<unk>``, which is the model's own."""
        return 10 ** (-self.log10 / (self.words + self.sentences))

    @property
    def of_known(self) -> float:
        """Without unknown words; those after them are foreseen from a shorter history."""
        known = self.words + self.sentences - self.unknown
        return 10 ** (-(self.log10 - self.unknown_log10) / known)

    def __str__(self) -> str:
        return (
            f"perplexity {self.of_known:.2f} without, {self.of_all:.2f} with unknown words; "
            f"unknown: {self.unknown} of {self.words} words "
            f"({100 * self.unknown / max(self.words, 1):.2f} %) in {self.sentences} sentences"
        )


def perplexity(path: Path, sentences: Iterable[str]) -> Perplexity:
    """Of normalised ``sentences``, by the language model of the file ``path``.

    Raises:
        ValueError: no sentences; or as ``asrlib.decoding.ngram.open_model``.
        FileNotFoundError, ModuleNotFoundError: likewise.
    """
    from asrlib.decoding.ngram import open_model  # imported here: it may import this package

    model, _ = open_model(path)
    result = Perplexity()
    for sentence in sentences:
        result.sentences += 1
        result.words += len(sentence.split())
        for log10, _, unknown in model.full_scores(sentence):
            result.log10 += log10
            result.unknown += unknown
            result.unknown_log10 += log10 if unknown else 0.0
    if not result.sentences:
        raise ValueError("no sentence to measure on")
    return result
