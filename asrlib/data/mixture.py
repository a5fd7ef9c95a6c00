"""Several datasets as one, each with a weight: LibriSpeech and Common Voice, speech and more of its kind.

A weight says how often an utterance comes in an epoch: 1 once, 2 twice (two utterances, with ids and so with
augmentations of their own), 0.5 in a random half of the epochs, 1.5 once and in a random half once more.
What is in an epoch is a function of (seed, epoch, utterance id), so that a training that goes on, or has
more processes, sees the same; the sampler asks for it as it asks for durations.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from asrlib.data.dataset import SpeechDataset
from asrlib.data.utterance import Index
from asrlib.randomness import hashed


class MixtureDataset(SpeechDataset):
    """The utterances of all parts, ids and speakers behind the name of their part: ``libri/84-121123-0000``.

    Args:
        parts: {name: the section of any other dataset, and its ``weight``, 1 unless given}; null leaves one
            out. The section's own options (``max_duration`` …) go before those of the whole.
        limit: of the whole.
        options: of ``SpeechDataset``.

    Raises:
        ValueError: a weight that is not positive, or not 1 where nothing is trained; a part that cannot be
            built, has augmentations of its own, or is a mixture itself; no parts; ``only`` for the whole.
    """

    def __init__(
        self,
        parts: Mapping[str, Mapping[str, Any] | None],
        limit: int | None = None,
        **options: Any,
    ):
        if options.get("only") is not None:
            raise ValueError(
                "a list of ids (only) belongs to one part of a mixture: parts.NAME.only"
            )
        whole, self._weights = Index(), {}
        self._by_reason: Counter[str] = Counter()
        chances: list[float] = []  # of each utterance to be in an epoch
        for name, section in parts.items():
            if section is None:
                continue
            weight = _weight(name, section, options.get("training", False))
            part = _part(name, section, options)
            self._weights[name] = weight
            self._by_reason += Counter(
                {f"{name}: {why}": n for why, n in part.skipped_by_reason().items()}
            )
            whole.skipped |= {f"{name}/{key}": reason for key, reason in part.skipped.items()}
            for copy in range(int(np.ceil(weight))):
                whole.utterances += [
                    replace(
                        u,
                        id=f"{name}/{u.id}#{copy + 1}" if copy else f"{name}/{u.id}",
                        speaker=u.speaker and f"{name}/{u.speaker}",
                    )
                    for u in part.utterances
                ]
                chances += [min(weight - copy, 1.0)] * len(part)
        if not self._weights:
            raise ValueError("a mixture without parts")
        # each part has left out what cannot be trained on, by its own options
        super().__init__(whole, limit=limit, **(options | {"training": False}))
        self._chances = {i: p for i, p in enumerate(chances[: len(self)]) if p < 1}

    def skipped_by_reason(self) -> Counter[str]:
        return self._by_reason

    def fingerprint(self) -> str:
        weights = ", ".join(f"{name} × {weight:g}" for name, weight in self._weights.items())
        return f"{super().fingerprint()}: {weights}"

    def durations(self, epoch: int) -> np.ndarray:
        durations = super().durations(epoch)
        for i, chance in self._chances.items():
            if hashed(self.seed, epoch, self.utterances[i].id, "mixture") >= chance * 2**128:
                durations[i] = 0.0
        return durations


def _weight(name: str, section: Mapping[str, Any], training: bool) -> float:
    weight = section.get("weight", 1)
    if not 0 < weight < float("inf"):
        raise ValueError(f"part {name}: weight={weight}; null in place of the part leaves it out")
    if weight != 1 and not training:
        raise ValueError(
            f"part {name}: weight={weight} is for training; dev and test count each utterance once"
        )
    return float(weight)


def _part(name: str, section: Mapping[str, Any], options: Mapping[str, Any]) -> SpeechDataset:
    from asrlib.build import build  # imported here: it builds models, too, which know no data

    if section.get("augmentations") is not None:
        raise ValueError(f"part {name}: augmentations are those of the whole; give the part none")
    section = {key: value for key, value in section.items() if key != "weight"}
    try:
        part = build(section, **{k: v for k, v in options.items() if k not in section})
    except Exception as error:  # whatever the dataset raises, the part is named
        raise ValueError(f"part {name}: {error}") from error
    if isinstance(part, MixtureDataset):
        raise ValueError(f"part {name} is itself a mixture: list its parts beside the others")
    return part
