"""Decoding a dataset, and scoring it where its texts are known."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from asrlib.data import AudioError, Utterance
from asrlib.data.dataset import SkippedItem
from asrlib.decoding import Hypothesis, LongForm
from asrlib.decoding.contract import Decoder, decode
from asrlib.metrics import ErrorRate
from asrlib.model import AcousticModel, CTCLoss
from asrlib.text import CTCTextEncoder
from asrlib.training.distributed import ALONE, World


@dataclass
class Evaluation:
    """Hypotheses of a dataset by utterance id, their errors, and the mean loss a label.

    ``loss_parts`` has, name by name, what a mixed loss is made of.
    """

    hypotheses: dict[str, Hypothesis] = field(default_factory=dict)
    utterances: dict[str, Utterance] = field(default_factory=dict)
    errors: ErrorRate = field(default_factory=ErrorRate)
    skipped: list[SkippedItem] = field(default_factory=list)
    loss: float = float("nan")
    loss_parts: dict[str, float] = field(default_factory=dict)

    def add(self, utterance: Utterance, hypothesis: Hypothesis) -> None:
        self.hypotheses[utterance.id] = hypothesis
        self.utterances[utterance.id] = utterance
        if utterance.text is not None:
            self.errors.add(utterance.text, hypothesis.text, utterance.id, utterance.speaker)

    def __iadd__(self, other: "Evaluation") -> "Evaluation":
        """Takes in what was found in other utterances; losses are no sums and stay as they are."""
        self.hypotheses |= other.hypotheses
        self.utterances |= other.utterances
        self.errors.utterances += other.errors.utterances
        self.skipped += other.skipped
        return self

    def rows(self) -> list[dict]:
        """The table that ``asrlib.tracking.errors`` and ``asrlib.metrics.compare`` read."""
        targets = {u.id: u.reference for u in self.errors.utterances}
        return [
            {
                "utterance_id": id,
                "audio_path": self.utterances[id].path,
                "speaker": self.utterances[id].speaker,
                "target": targets.get(id),
                "predict": hypothesis.text,
            }
            for id, hypothesis in self.hypotheses.items()
        ]


Keep = Callable[[Utterance, Hypothesis], object]


def forget(utterance: Utterance, hypothesis: Hypothesis) -> None:
    """Keeps nothing."""


@torch.no_grad()
def recognize(
    batch: dict,
    model: AcousticModel,
    decoder: Decoder,
    text_encoder: CTCTextEncoder,
    labelled: bool = False,
    keep: Keep = forget,
) -> Evaluation:
    """Decodes a batch with a model in evaluation mode; what it makes is added to the batch.

    Args:
        labelled: the model is told the labels, too, for the loss of what spells known texts.
        keep: called with each hypothesis as soon as it is there.
    """
    evaluation = Evaluation(skipped=[*batch["skipped"]])
    for item in batch["long"]:
        try:
            hypothesis = LongForm(model, decoder, text_encoder)(item.pieces())
        except AudioError as error:
            evaluation.skipped.append(SkippedItem(item.utterance, str(error)))
        else:
            evaluation.add(item.utterance, hypothesis)
            keep(item.utterance, hypothesis)
    if "audio" not in batch:
        return evaluation
    labels = {"labels": batch} if labelled else {}
    batch |= model(batch["audio"].to(model.device), batch["audio_length"], **labels)
    for utterance, hypothesis in zip(batch["utterance"], decode(decoder, batch), strict=True):
        evaluation.add(utterance, hypothesis)
        keep(utterance, hypothesis)
    return evaluation


@torch.no_grad()
def evaluate(
    loader: Iterable[dict],
    model: AcousticModel,
    decoder: Decoder,
    text_encoder: CTCTextEncoder,
    criterion: CTCLoss | None = None,
    description: str = "evaluating",
    world: World = ALONE,
    stop: Callable[[], object] = lambda: False,
    keep: Keep = forget,
) -> Evaluation:
    """Decodes all of ``loader``; texts that are known are scored.

    The loss is measured where all texts of a batch are known. Leaves the model in evaluation mode.

    Args:
        world: processes of which each has a share of the batches; all return what all of them found.
        stop: asked after each batch; once it is true, the rest is left out.
        keep: as of ``recognize``.
    """
    evaluation = Evaluation()
    total, parts, count = 0.0, Counter(), 0
    model.eval()
    silent = None if world.is_first else True  # None: where the output is no terminal
    for batch in tqdm(loader, desc=description, unit="batch", leave=False, disable=silent):
        if stop():
            break
        labelled = criterion is not None
        evaluation += recognize(batch, model, decoder, text_encoder, labelled, keep)
        if labelled and "text_encoded" in batch:
            loss = criterion(batch)
            total, count = total + loss.total.item(), count + loss.count
            parts.update({name: part.item() for name, part in loss.parts.items()})
    merged, *others = world.gather((evaluation, total, parts, count))
    evaluation, total, parts, count = merged
    for other in others:
        evaluation += other[0]
        total, count = total + other[1], count + other[3]
        parts.update(other[2])
    if count:
        evaluation.loss = total / count
        evaluation.loss_parts = {name: part / count for name, part in parts.items()}
    return evaluation
