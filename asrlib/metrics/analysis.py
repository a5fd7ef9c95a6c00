"""Where the errors are: by length, rate, speaker, by how often a word was heard; what is taken for what."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from asrlib.metrics.error_rate import (
    Edits,
    ErrorRate,
    ScoredUtterance,
    align_words,
    score_utterance,
)
from asrlib.text import normalize

LENGTHS = (5, 10, 20, 40)  # words: upper ends of the classes; the last has no end
RATES = (2.0, 2.5, 3.0, 3.5)  # words a second, likewise
FAMILIAR = (0, 9, 99)  # times in training, likewise
LETTERS = 3  # edits between two words, from which they count as one class


def by_length(errors: ErrorRate) -> list[dict]:
    """WER of utterances with 0–5 reference words, 6–10, …; classes without any are left out."""

    def name(u: ScoredUtterance) -> str:
        place = sum(u.words.reference > limit for limit in LENGTHS)
        low = LENGTHS[place - 1] + 1 if place else 0
        return f"{low}–{LENGTHS[place]}" if place < len(LENGTHS) else f"{low} and more"

    order = sorted(errors.utterances, key=lambda u: u.words.reference)
    return _grouped(order, "length", name)


def by_rate(errors: ErrorRate, seconds: Mapping[str, float]) -> list[dict]:
    """WER by the reference words in a second; ``seconds`` are those of each utterance's recording."""

    def rate(u: ScoredUtterance) -> float:
        return u.words.reference / seconds[u.id]

    def name(u: ScoredUtterance) -> str:
        place = sum(rate(u) > limit for limit in RATES)
        low = f"more than {RATES[place - 1]:g}" if place else ""
        high = f"up to {RATES[place]:g}" if place < len(RATES) else ""
        return ", ".join(filter(None, (low, high)))

    return _grouped(sorted(errors.utterances, key=rate), "words a second", name)


def by_speaker(errors: ErrorRate) -> list[dict]:
    """WER of each speaker, the worst first; those without reference words, who have none, last."""
    rows = _grouped(errors.utterances, "speaker", lambda u: u.speaker or "unknown")
    return sorted(rows, key=lambda row: (-row["WER"] if row["words"] else math.inf, row["speaker"]))


def by_familiarity(errors: ErrorRate, training: Iterable[str]) -> list[dict]:
    """How many reference words are not recognised, by how often each is in the texts of ``training``."""
    known = Counter(word for text in training for word in normalize(text).split())
    total, wrong = Counter(), Counter()
    for kind, word, _ in _aligned(errors):
        if word:
            place = sum(known[word] > limit for limit in FAMILIAR)
            total[place] += 1
            wrong[place] += kind != "equal"
    names = [
        "0",
        *(f"{low + 1}–{high}" for low, high in pairwise(FAMILIAR)),
        f"{FAMILIAR[-1] + 1} and more",
    ]
    return [
        {
            "times in training": names[place],
            "words": total[place],
            "wrong %": 100 * wrong[place] / total[place],
        }
        for place in sorted(total)
    ]


def by_letters(errors: ErrorRate) -> list[dict]:
    """How far substituted words are from what was said, in edits of letters."""
    counts = Counter(
        min(score_utterance(word, taken_for).characters.total, LETTERS)
        for kind, word, taken_for in _aligned(errors)
        if kind == "substitute"
    )
    return [
        {
            "edits of letters": f"{edits} and more" if edits == LETTERS else f"{edits}",
            "substitutions": times,
            "share %": 100 * times / counts.total(),
        }
        for edits, times in sorted(counts.items())
    ]


def _aligned(errors: ErrorRate) -> Iterator[tuple[str, str, str]]:
    for u in errors.utterances:
        yield from align_words(u.reference, u.hypothesis)


def _grouped(
    utterances: Sequence[ScoredUtterance], label: str, name: Callable[[ScoredUtterance], str]
) -> list[dict]:
    groups: dict[str, list[Edits]] = {}
    for u in utterances:
        groups.setdefault(name(u), []).append(u.words)
    rows = []
    for group, edits in groups.items():
        total = sum(edits, Edits())
        rows.append(
            {label: group, "utterances": len(edits), "words": total.reference, "WER": total.rate}
        )
    return rows


def confusions(errors: ErrorRate, most: int = 20) -> list[dict]:
    """The most frequent errors: a word, what it was taken for ("" is nothing), how often.

    Among equally frequent ones in the order of the alphabet.
    """
    counts = Counter(
        (reference, hypothesis)
        for kind, reference, hypothesis in _aligned(errors)
        if kind != "equal"
    )
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        {"reference": reference, "hypothesis": hypothesis, "times": times}
        for (reference, hypothesis), times in order[:most]
    ]
