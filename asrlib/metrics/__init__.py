"""Error rates over a corpus, and how far to trust them."""

from asrlib.metrics.bootstrap import wer_interval
from asrlib.metrics.error_rate import (
    Edits,
    ErrorRate,
    ScoredUtterance,
    align_words,
    score_utterance,
)
from asrlib.metrics.folders import FolderScore, read_texts, score_texts

__all__ = [
    "Edits",
    "ErrorRate",
    "FolderScore",
    "ScoredUtterance",
    "align_words",
    "read_texts",
    "score_texts",
    "score_utterance",
    "wer_interval",
]
