"""The loss of a model that spells: attention and CTC."""

import torch
import torch.nn.functional as F
from torch import Tensor

from asrlib.model.alignment import guidance_sum
from asrlib.model.las import EOS
from asrlib.model.losses import CTCLoss, LossSum


class JointLoss(CTCLoss):
    """Attention with CTC (Kim et al., "Joint CTC-attention based end-to-end speech recognition using
    multi-task learning", ICASSP 2017).

    (1 − attention) · CTC, alone or mixed as in ``CTCLoss``, + attention · cross entropy of the speller
    + guidance · −ln of the attention near CTC's times

    The cross entropy is a sum over labels and the end of the text, with smoothed labels (Szegedy et
    al. 2016); all is divided by target labels. It needs no CTC path: utterances without one are
    named and left out of CTC alone, and with the weight 1, where nothing of CTC is computed, not
    even named.

    Args:
        attention: weight in (0, 1].
        label_smoothing: share of each target that is spread over all labels, in [0, 1).
        guidance: weight of what draws attention to where CTC heard a label, 0 or more.
        intermediate, consistency, phones: as ``CTCLoss`` has them.
    """

    IGNORED = -100

    def __init__(
        self,
        attention: float = 0.7,
        label_smoothing: float = 0.1,
        guidance: float = 0.0,
        intermediate: float = 0.0,
        consistency: float = 0.0,
        phones: float | None = None,
    ):
        super().__init__(intermediate, consistency, phones)
        if not 0 < attention <= 1 or not 0 <= label_smoothing < 1:
            raise ValueError(
                f"loss.attention={attention} must be in (0, 1], "
                f"loss.label_smoothing={label_smoothing} in [0, 1)"
            )
        if guidance < 0:
            raise ValueError(f"loss.guidance={guidance} must not be below 0")
        if attention == 1 and (intermediate or consistency or guidance or phones):
            raise ValueError(
                "loss.attention=1 leaves no weight for CTC, which loss.intermediate, loss.consistency, "
                "loss.phones and loss.guidance need: lower it"
            )
        self.attention, self.label_smoothing, self.guidance = attention, label_smoothing, guidance

    def count(self, batch: dict, frames: Tensor) -> int:
        """All target labels, once for all views."""
        return int(batch["text_encoded_length"].sum())

    def forward(self, batch: dict) -> LossSum:
        """As ``CTCLoss.forward``; ``batch`` also has ``attention_logits`` [N·B, U + 1, V].

        Raises:
            ValueError: the model does not make them, or no intermediate outputs that are asked for.
        """
        if "attention_logits" not in batch:
            raise ValueError(
                f"loss.attention={self.attention} needs a speller: choose model=las, or loss=ctc"
            )
        views = len(batch["attention_logits"]) // len(batch["text_encoded"])
        spelled = self._cross_entropy(batch, views) / views
        parts, count = {"attention": spelled.detach()}, self.count(batch, None)
        if self.attention == 1:
            return LossSum(spelled, count, [], parts)
        ctc = super().forward(batch)
        total = (1 - self.attention) * ctc.total + self.attention * spelled
        parts |= ctc.parts or {"ctc": ctc.total.detach()}
        if self.guidance:
            guidance = self._guidance(batch, views, ctc.infeasible) / views
            parts["guidance"] = guidance.detach()
            total = total + self.guidance * guidance
        return LossSum(total, count, ctc.infeasible, parts)

    def _guidance(self, batch: dict, views: int, infeasible: list[int]) -> Tensor:
        """Summed over the labels of all rows that have a CTC path."""
        size = len(batch["text_encoded"])
        rows = [
            view * size + i for view in range(views) for i in range(size) if i not in infeasible
        ]
        of_text = [row % size for row in rows]
        return guidance_sum(
            *(batch[name][rows] for name in ("attention", "log_probs", "log_probs_length")),
            *(batch[name][of_text] for name in ("text_encoded", "text_encoded_length")),
        )

    def _cross_entropy(self, batch: dict, views: int) -> Tensor:
        """Summed over the labels, and the end, of all rows."""
        logits, texts = batch["attention_logits"], batch["text_encoded"]
        lengths = batch["text_encoded_length"].unsqueeze(1)
        positions = torch.arange(texts.shape[1] + 1)
        targets = F.pad(texts, (0, 1)).masked_fill(positions == lengths, EOS)
        targets = targets.masked_fill(positions > lengths, self.IGNORED).repeat(views, 1)
        return F.cross_entropy(
            logits.float().flatten(0, 1),
            targets.flatten().to(logits.device),
            ignore_index=self.IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
