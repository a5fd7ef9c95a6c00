"""Corpus-level word and character error rates.

WER = 100 · (S + D + I) / N with the edits and the N reference words summed over the whole corpus.
Both sides go through the same normaliser. Edge cases, on purpose:

* an empty reference with a hypothesis counts its words as insertions, with no words in N;
* a corpus without a single reference word has no error rate: ``nan``, not 0;
* alignment and counting are jiwer's; an empty side is counted here, since jiwer refuses it.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import zip_longest

import jiwer

from asrlib.text import normalize


@dataclass(frozen=True)
class Edits:
    """Counts of one alignment (or of a sum of them). ``reference`` is the reference's length."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference: int = 0

    def __add__(self, other: "Edits") -> "Edits":
        return Edits(*(a + b for a, b in zip(self.as_tuple(), other.as_tuple(), strict=True)))

    def as_tuple(self) -> tuple[int, int, int, int]:
        return self.substitutions, self.deletions, self.insertions, self.reference

    @property
    def total(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Percent of the reference; ``nan`` for an empty reference."""
        return 100.0 * self.total / self.reference if self.reference else math.nan


@dataclass(frozen=True)
class ScoredUtterance:
    """One utterance's normalised texts and its edits, by words and by characters."""

    id: str
    speaker: str | None
    reference: str
    hypothesis: str
    words: Edits
    characters: Edits


def _edits(reference: list[str] | str, hypothesis: list[str] | str, process) -> Edits:
    if not reference or not hypothesis:
        return Edits(deletions=len(reference), insertions=len(hypothesis), reference=len(reference))
    joined = (" ".join(x) if isinstance(x, list) else x for x in (reference, hypothesis))
    counts = process(*joined)
    return Edits(counts.substitutions, counts.deletions, counts.insertions, len(reference))


def score_utterance(
    reference: str, hypothesis: str, id: str = "", speaker: str | None = None
) -> ScoredUtterance:
    """Aligns one pair of texts; both are normalised first. Spaces count as characters in the CER."""
    reference, hypothesis = normalize(reference), normalize(hypothesis)
    words = _edits(reference.split(), hypothesis.split(), jiwer.process_words)
    characters = _edits(reference, hypothesis, jiwer.process_characters)
    return ScoredUtterance(id, speaker, reference, hypothesis, words, characters)


def align_words(reference: str, hypothesis: str) -> list[tuple[str, str, str]]:
    """(kind, reference word, hypothesis word) in order, of normalised texts.

    Kinds are "equal", "substitute", "delete" and "insert"; the side without a word has "".
    """
    left, right = reference.split(), hypothesis.split()
    if not left or not right:
        deleted = [("delete", word, "") for word in left]
        return deleted + [("insert", "", word) for word in right]
    chunks = jiwer.process_words(" ".join(left), " ".join(right)).alignments[0]
    aligned = []
    for chunk in chunks:
        pair = (
            left[chunk.ref_start_idx : chunk.ref_end_idx],
            right[chunk.hyp_start_idx : chunk.hyp_end_idx],
        )
        aligned += [(chunk.type, *words) for words in zip_longest(*pair, fillvalue="")]
    return aligned


class ErrorRate:
    """Accumulates scored utterances; the rates are those of the corpus.

    >>> rate = ErrorRate()
    >>> _ = rate.add("a cat sat", "a cat")
    >>> round(rate.wer, 1), rate.words.deletions
    (33.3, 1)
    """

    def __init__(self, utterances: Iterable[ScoredUtterance] = ()):
        self.utterances = list(utterances)

    def add(
        self, reference: str, hypothesis: str, id: str = "", speaker: str | None = None
    ) -> ScoredUtterance:
        scored = score_utterance(reference, hypothesis, id, speaker)
        self.utterances.append(scored)
        return scored

    @property
    def words(self) -> Edits:
        return sum((u.words for u in self.utterances), Edits())

    @property
    def characters(self) -> Edits:
        return sum((u.characters for u in self.utterances), Edits())

    @property
    def wer(self) -> float:
        """Word error rate in percent."""
        return self.words.rate

    @property
    def cer(self) -> float:
        """Character error rate in percent."""
        return self.characters.rate

    def as_dict(self) -> dict:
        words = asdict(self.words)
        return {
            "wer": self.wer,
            "cer": self.cer,
            "words": words.pop("reference"),
            **words,
            "utterances": len(self.utterances),
        }
