"""Training losses: a sum, and the count that it is divided by.

Batches are of unequal size, so a mean of means would weigh utterances by the company they keep. The
trainer divides the summed losses of a whole step (all accumulated batches) by their summed counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrlib.espeak import require_espeak
from asrlib.model.masking import length_mask
from asrlib.text import BLANK
from asrlib.text.phones import Pronouncer


@dataclass(frozen=True)
class LossSum:
    """``total`` is a scalar with gradient; ``infeasible`` has rows of the batch that were left out.

    Of a mixed loss, ``parts`` has what it is made of: name → sum, before its weight, no gradient.
    """

    total: Tensor
    count: int
    infeasible: list[int]
    parts: dict[str, Tensor] = field(default_factory=dict)


def ctc_feasible(frames: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """bool [B]: whether T' ≥ U + adjacent repeats, the frames that the shortest CTC path needs.

    Args:
        frames: T' of each utterance, int [B].
        targets: label ids, int [B, U]; beyond each length anything.
        target_lengths: int [B].
    """
    repeats = targets[:, 1:] == targets[:, :-1]
    for row, length in enumerate(target_lengths.tolist()):
        repeats[row, max(length - 1, 0) :] = False
    return frames >= target_lengths + repeats.sum(dim=1)


def ctc_sums(
    outputs: Sequence[Tensor], frames: Tensor, targets: Tensor, target_lengths: Tensor
) -> Tensor:
    """Sum of −log p(target) by each of N outputs for a batch in which every utterance has a path [N].

    All at once: a GPU goes through the frames of many utterances in the time of one. Zeros where the
    batch is empty.

    Args:
        outputs: log_probs [B, T', V] each; computed in float32.
        frames, targets, target_lengths: as for ``ctc_feasible``, on the CPU.
    """
    log_probs, count = torch.cat([output.float() for output in outputs]), len(outputs)
    if not len(log_probs):  # torch refuses it; zeros that can still be differentiated
        return log_probs.sum().expand(count)
    labels = targets.repeat(count, 1), target_lengths.repeat(count)
    return ctc_losses_of(log_probs, frames.repeat(count), *labels).view(count, -1).sum(dim=1)


def ctc_losses_of(
    log_probs: Tensor, frames: Tensor, targets: Tensor, target_lengths: Tensor
) -> Tensor:
    """As ``asrlib.model.ctc.ctc_losses``, on any device; the texts are on the CPU."""
    losses = _losses_on_a_cpu() if log_probs.device.type == "cpu" else torchs_losses
    return losses(log_probs, frames, targets, target_lengths)


@cache
def _losses_on_a_cpu() -> Callable[..., Tensor]:
    """The compiled ones, where numba is: it takes a second to load, for which a GPU has no use."""
    try:
        from asrlib.model.ctc import ctc_losses
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        return torchs_losses
    return ctc_losses


def torchs_losses(
    log_probs: Tensor, frames: Tensor, targets: Tensor, target_lengths: Tensor
) -> Tensor:
    """As ``asrlib.model.ctc.ctc_losses``, on any device."""
    by_frame, targets = log_probs.transpose(0, 1), targets.to(log_probs.device)
    return F.ctc_loss(by_frame, targets, frames, target_lengths, BLANK, reduction="none")


def consistency_sum(first: Tensor, second: Tensor, frames: Tensor) -> Tensor:
    """How far two views of the same utterances disagree, summed over their real frames.

    At each frame (KL(second' ‖ first) + KL(first' ‖ second)) / 2, where ' has no gradient: each view
    learns from the other as it is.

    Args:
        first, second: log_probs [B, T', V]; computed in float32.
        frames: T' of each utterance, int [B].
    """
    first, second = first.float(), second.float()
    divergence = F.kl_div(first, second.detach(), reduction="none", log_target=True)
    divergence = divergence + F.kl_div(second, first.detach(), reduction="none", log_target=True)
    real = length_mask(frames, first.shape[1], first.device)
    return divergence.sum(dim=2).masked_fill(~real, 0.0).sum() / 2


class CTCLoss(nn.Module):
    """Connectionist temporal classification (Graves et al. 2006), alone or mixed with regularisers.

    (1 − intermediate) · CTC + intermediate · CTC of inner layers + phones · CTC of phones
    + consistency · CR

    Intermediate CTC (Lee and Watanabe, "Intermediate loss regularization for CTC-based speech
    recognition", ICASSP 2021) asks layers inside the encoder for the labels, too; the mean over those
    layers counts. CR-CTC (Yao et al., "CR-CTC: consistency regularization on CTC for improved speech
    recognition", ICLR 2025) has the encoder see two differently masked views of each utterance, which
    should agree in every frame (``consistency_sum``); the mean of both views' CTC counts. As in that
    paper CR is a sum over frames beside CTC's sum over labels: all is then divided by target labels.

    CTC of phones asks an inner layer for how the text sounds, which is nearer to what was heard than its
    spelling (Fernández et al., "Sequence labelling in structured domains with hierarchical recurrent neural
    networks", IJCAI 2007; Krishna et al., "Hierarchical multitask learning for CTC-based speech recognition",
    2018); as a sum over phones it is divided by target labels, too.

    Utterances without a CTC path are in no part, and named in ``infeasible`` instead of being hidden
    behind a zero; one with a path for its labels and none for its phones is in all parts but that of phones.
    Evaluation has one view and no CR.

    Args:
        intermediate: weight in [0, 1); not 0 needs a model with ``intermediate_layers``.
        consistency: weight of CR; not 0 makes the trainer show two ``views`` of a batch.
        phones: weight of the CTC of phones, if any; it needs a model with a ``phone_layer``, and espeak-ng.
    """

    def __init__(
        self, intermediate: float = 0.0, consistency: float = 0.0, phones: float | None = None
    ):
        super().__init__()
        phones = phones or 0.0
        if not 0 <= intermediate < 1 or consistency < 0 or phones < 0:
            raise ValueError(
                f"loss.intermediate={intermediate} must be in [0, 1), "
                f"loss.consistency={consistency} and loss.phones={phones} not below 0"
            )
        self.intermediate, self.consistency, self.phones = intermediate, consistency, phones
        if self.phones:
            require_espeak()  # before any work
        self.pronounce = Pronouncer()
        self.views = 2 if consistency else 1

    def count(self, batch: dict, frames: Tensor) -> int:
        """Target labels of the utterances that have a path, once for all views; ``frames`` is T' [B]."""
        lengths = batch["text_encoded_length"]
        return int(lengths[ctc_feasible(frames, batch["text_encoded"], lengths)].sum())

    def forward(self, batch: dict) -> LossSum:
        """The loss of ``batch``, whose B utterances come in N = 1 or 2 views, one view after the other.

        Args:
            batch: ``text_encoded`` [B, U], ``log_probs`` [N·B, T', V], ``text_encoded_length`` [B],
                ``log_probs_length`` [N·B], and what the weights ask for: ``intermediate_log_probs``,
                a list of [N·B, T', V]; ``text``, a list of B, and ``phone_log_probs`` [N·B, T', P].

        Raises:
            ValueError: intermediate outputs or phones are asked for, and the model makes none.
        """
        texts, text_lengths = batch["text_encoded"], batch["text_encoded_length"]
        views = len(batch["log_probs"]) // len(texts)
        frames = batch["log_probs_length"][: len(texts)]  # alike in all views
        feasible = ctc_feasible(frames, texts, text_lengths)
        rows = feasible.nonzero().squeeze(1)
        labels = [x[rows].repeat(views, *[1] * (x.ndim - 1)) for x in (frames, texts, text_lengths)]
        every = feasible.repeat(views).nonzero().squeeze(1).to(batch["log_probs"].device)

        inner = self._intermediate_outputs(batch) if self.intermediate else []
        outputs = [output[every] for output in (batch["log_probs"], *inner)]
        total, *others = (ctc_sums(outputs, *labels) / views).unbind()
        parts = {"ctc": total.detach()}
        if self.intermediate:
            mean = sum(others) / len(others)
            parts["intermediate"] = mean.detach()
            total = (1 - self.intermediate) * total + self.intermediate * mean
        if self.phones:
            sound = self._phones_sum(batch, rows, frames, views)
            parts["phones"] = sound.detach()
            total = total + self.phones * sound
        if self.consistency and views == 2:
            first, second = outputs[0].chunk(2)
            disagreement = consistency_sum(first, second, frames[rows])
            parts["consistency"] = disagreement.detach()
            total = total + self.consistency * disagreement
        infeasible = (~feasible).nonzero().flatten().tolist()
        mixed = self.intermediate or self.consistency or self.phones
        return LossSum(total, int(text_lengths[rows].sum()), infeasible, parts if mixed else {})

    def _phones_sum(self, batch: dict, rows: Tensor, frames: Tensor, views: int) -> Tensor:
        """CTC of the phones of ``rows``, summed over them, the mean of all views."""
        if "phone_log_probs" not in batch:
            raise ValueError(
                f"loss.phones={self.phones} needs a model that makes phones: set model.phone_layer, or "
                "choose another loss"
            )
        phones, lengths = self.pronounce([batch["text"][row] for row in rows.tolist()])
        possible = ctc_feasible(frames[rows], phones, lengths)
        rows, phones, lengths = rows[possible], phones[possible], lengths[possible]
        every = torch.cat([rows + view * len(frames) for view in range(views)])
        output = batch["phone_log_probs"][every.to(batch["phone_log_probs"].device)]
        labels = [x.repeat(views, *[1] * (x.ndim - 1)) for x in (frames[rows], phones, lengths)]
        return ctc_sums([output], *labels)[0] / views

    def _intermediate_outputs(self, batch: dict) -> list[Tensor]:
        if not batch.get("intermediate_log_probs"):
            raise ValueError(
                f"loss.intermediate={self.intermediate} needs a model with inner outputs: "
                "set model.intermediate_layers, or choose loss=ctc"
            )
        return batch["intermediate_log_probs"]
