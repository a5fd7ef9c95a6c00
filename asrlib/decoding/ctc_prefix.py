"""CTC's probability that the labels of an utterance begin with a prefix.

Graves, "Supervised sequence labelling with recurrent neural networks", 2008; as the second opinion of a
search by attention: Watanabe et al., "Hybrid CTC/attention architecture for end-to-end speech
recognition", 2017.

Design choices:

* Nothing runs from frame to frame. A path that ends in the label c at frame t came there at some frame
  s and stayed: r(t) = p_c(t) · (r(t − 1) + φ(t)), φ being what enters. So with the running product
  P(t) = p_c(1) … p_c(t), r(t) / P(t) is the running sum of φ(s) / P(s − 1). Both are scans, of
  logarithms in float64, which keep ten digits after the point even where they are in the thousands.
* To rank extensions of a prefix only their sum over frames is needed; states are made for those that
  are kept.
"""

import torch
from torch import Tensor

from asrlib.model.masking import length_mask
from asrlib.text import BLANK

LEAST = -1e4  # a probability of 0 as a logarithm that can be added up


class CTCPrefixScorer:
    """Scores prefixes of K hypotheses in each of B utterances, which share the frames of theirs.

    A state float64 [B, K, 2, T' + 1] has ln p of all paths that have written the prefix after 0 to T'
    frames: first those that end in its last label, then those that end in a blank.

    Args:
        log_probs: float [B, T', V]; beyond each length anything.
        lengths: frames int64 [B], on the same device.
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor):
        mask = length_mask(lengths, log_probs.shape[1], log_probs.device).unsqueeze(1)
        emissions = log_probs.double().clamp(min=LEAST).transpose(1, 2)  # [B, V, T']
        sums = emissions.masked_fill(~mask, 0.0).cumsum(dim=-1)
        self.sums = torch.cat([torch.zeros_like(sums[..., :1]), sums], dim=-1)  # [B, V, T' + 1]
        self.emissions = emissions.masked_fill(~mask, -torch.inf)
        self.lengths = lengths

    def select(self, rows: Tensor) -> None:
        """Keeps the utterances ``rows`` int64 [n] alone."""
        self.emissions, self.sums, self.lengths = (
            x[rows] for x in (self.emissions, self.sums, self.lengths)
        )

    def start(self, hypotheses: int) -> Tensor:
        """The state of the empty prefix, for K ``hypotheses``: blanks so far."""
        blanks = self.sums[:, BLANK]
        state = torch.stack([torch.full_like(blanks, -torch.inf), blanks], dim=1)
        return state.unsqueeze(1).repeat(1, hypotheses, 1, 1)

    def whole(self, state: Tensor) -> Tensor:
        """[B, K]: ln p of the labels being the prefix and nothing else."""
        ends = self.lengths.view(-1, 1, 1, 1).expand(*state.shape[:3], 1)
        return state.gather(-1, ends).squeeze(-1).logsumexp(dim=-1)

    def extended(self, state: Tensor, last: Tensor, labels: Tensor) -> Tensor:
        """ln p [B, K, C] of prefixes that are longer by one label.

        Args:
            last: label at the end of each prefix, int64 [B, K]; ``BLANK`` for the empty one.
            labels: to be tried after it, int64 [B, K, C], of which blanks mean nothing.
        """
        utterance = torch.arange(len(labels), device=labels.device).view(-1, 1, 1)
        entering = state[..., :-1].logsumexp(dim=2)  # [B, K, T']
        scores = (entering.unsqueeze(2) + self.emissions[utterance, labels]).logsumexp(dim=-1)
        # only after a blank the same label begins anew
        same = (state[:, :, 1, :-1] + self.emissions[utterance[..., 0], last]).logsumexp(dim=-1)
        return torch.where(labels == last.unsqueeze(-1), same.unsqueeze(-1), scores)

    def extend(self, state: Tensor, last: Tensor, label: Tensor) -> Tensor:
        """The states [B, K, 2, T' + 1] after each prefix was extended by ``label`` int64 [B, K]."""
        repeated = (label == last).unsqueeze(-1)
        entering = torch.where(repeated, state[:, :, 1], state.logsumexp(dim=2))
        utterance = torch.arange(len(label), device=label.device).unsqueeze(1)
        in_label = _scan(entering, self.sums[utterance, label])
        in_blank = _scan(in_label, self.sums[:, BLANK].unsqueeze(1))
        return torch.stack([in_label, in_blank], dim=2)


def _scan(entering: Tensor, sums: Tensor) -> Tensor:
    """r [B, K, T' + 1] of r(t + 1) = p(t) · (r(t) + entering(t)), r(0) = 0, as logarithms.

    ``sums`` [B, K or 1, T' + 1] are those of ln p before each frame.
    """
    gathered = (entering - sums)[..., :-1].logcumsumexp(dim=-1) + sums[..., 1:]
    return torch.cat([torch.full_like(gathered[..., :1], -torch.inf), gathered], dim=-1)
