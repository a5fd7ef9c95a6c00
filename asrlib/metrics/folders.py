"""Scoring a folder of predictions against a folder of references: ``ID.txt`` in both."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asrlib.files import read_text, speaker_of, texts_by_id
from asrlib.metrics.error_rate import ErrorRate


@dataclass(frozen=True)
class FolderScore:
    """Errors of all references, and what stands on one side only."""

    errors: ErrorRate
    missing: list[str]  # ids without a prediction: all their words count as deleted
    unexpected: list[str]  # ids predicted without a reference: not scored

    @property
    def mean_utterance_wer(self) -> float:
        """Mean of the utterances' own WERs, in percent; those without reference words are left out.

        Not the WER: a one-word utterance weighs as much here as one of forty words.
        """
        return _mean(u.words.rate for u in self.errors.utterances)

    @property
    def mean_utterance_cer(self) -> float:
        """As ``mean_utterance_wer``, of characters."""
        return _mean(u.characters.rate for u in self.errors.utterances)


def _mean(rates) -> float:
    known = [rate for rate in rates if not math.isnan(rate)]
    return sum(known) / len(known) if known else math.nan


def read_texts(folder: Path | str) -> dict[str, str]:
    """{id: text} of every ``ID.txt`` in ``folder``, whose ending may be in upper case.

    Raises:
        FileNotFoundError: no such folder, or no ``.txt`` file in it.
        OSError: one of them cannot be read.
    """
    folder = Path(folder)
    texts = {id: read_text(path) for id, path in texts_by_id(folder).items()}
    if not texts:
        raise FileNotFoundError(f"no ID.txt files in {folder.absolute()}")
    return texts


def score_texts(
    references: Mapping[str, str],
    predictions: Mapping[str, str],
    speaker_pattern: str | None = None,
) -> FolderScore:
    """Scores {id: text} against {id: text}; both sides are normalised.

    Args:
        speaker_pattern: a regular expression whose first group is the speaker within an id.
    """
    errors = ErrorRate()
    for id, reference in references.items():
        errors.add(reference, predictions.get(id, ""), id, speaker_of(id, speaker_pattern))
    return FolderScore(
        errors,
        missing=sorted(references.keys() - predictions.keys()),
        unexpected=sorted(predictions.keys() - references.keys()),
    )
