"""How probable each label is in a frame of no matter what, and how to divide that out.

How often labels are is then left to the language model, which knows it better (Miao et al., EESEN, ASRU 2015;
Kanda et al., Interspeech 2016).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from asrlib.decoding.options import require


def require_prior(prior: Sequence[float] | None, weight: float, labels: int) -> None:
    """Raises ``ValueError`` unless ``prior`` has a probability for each label, or is not needed."""
    require(0 <= weight < math.inf, f"prior_weight {weight}: 0 or more")
    if prior is not None:
        require(
            len(prior) == labels and min(prior) > 0,
            f"label_prior: {labels} probabilities above 0, one for each label",
        )
    else:
        require(
            weight == 0,
            f"prior_weight {weight} needs a label_prior: python -m asrlib.decoding.tune "
            "tune.prior_weights=[…] measures it and keeps it for decoder=tuned",
        )


def without_prior(log_probs: Tensor, prior: Sequence[float] | None, weight: float) -> Tensor:
    """``log_probs`` [..., V] over ``prior`` to the power of ``weight``, scaled to sum to 1 again.

    Raises:
        ValueError: as ``require_prior``.
    """
    require_prior(prior, weight, log_probs.shape[-1])
    if weight == 0:
        return log_probs
    scaled = log_probs - weight * torch.tensor(list(prior), dtype=log_probs.dtype).log()
    sums = scaled.logsumexp(-1, keepdim=True)
    return scaled - sums.clamp_min(torch.finfo(sums.dtype).min)  # -inf where all are impossible
