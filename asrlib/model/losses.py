"""Training losses: a sum, and the count that it is divided by.

Batches are of unequal size, so a mean of means would weigh utterances by the company they keep. The
trainer divides the summed losses of a whole step (all accumulated batches) by their summed counts.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from asrlib.text import BLANK


@dataclass(frozen=True)
class LossSum:
    """``total`` is a scalar with gradient; ``infeasible`` has rows of the batch that were left out."""

    total: Tensor
    count: int
    infeasible: list[int]


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


class CTCLoss(nn.Module):
    """Connectionist temporal classification (Graves et al. 2006), counted in target labels.

    Utterances without a CTC path are named in ``infeasible`` instead of being hidden behind a zero.
    """

    def count(self, batch: dict, frames: Tensor) -> int:
        """Target labels of the utterances that have a path; ``frames`` is T' [B]."""
        lengths = batch["text_encoded_length"]
        return int(lengths[ctc_feasible(frames, batch["text_encoded"], lengths)].sum())

    def forward(self, batch: dict) -> LossSum:
        """``batch`` with ``log_probs`` [B, T', V], ``text_encoded`` [B, U] and their lengths."""
        frames, lengths = batch["log_probs_length"], batch["text_encoded_length"]
        feasible = ctc_feasible(frames, batch["text_encoded"], lengths)
        log_probs = batch["log_probs"].float()
        rows = feasible.nonzero().squeeze(1)
        if len(rows):
            device_rows = rows.to(log_probs.device)
            total = F.ctc_loss(
                log_probs[device_rows].transpose(0, 1),
                batch["text_encoded"][rows].to(log_probs.device),
                frames[rows],
                lengths[rows],
                blank=BLANK,
                reduction="sum",
            )
        else:  # torch refuses an empty batch; a zero that can still be differentiated
            total = log_probs.sum() * 0.0
        return LossSum(total, int(lengths[rows].sum()), (~feasible).nonzero().flatten().tolist())
