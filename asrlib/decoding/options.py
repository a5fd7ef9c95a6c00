"""What decoders ask of their options and their input."""

import math
from collections.abc import Iterable

import numpy as np
from torch import Tensor

from asrlib.text import CTCTextEncoder


def require(condition: bool, message: str) -> None:
    """Raises ``ValueError`` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)


def require_labels(log_probs: Tensor, text_encoder: CTCTextEncoder) -> None:
    """Raises ``ValueError`` unless the last dimension of ``log_probs`` is the text encoder's labels."""
    found, labels = log_probs.shape[-1], len(text_encoder)
    require(found == labels, f"{found} labels, expected {labels}")


def require_sound(log_probs: Iterable[np.ndarray]) -> None:
    """Raises ``ValueError`` for a batch in which some utterance's [T', V] holds NaN."""
    sound = not any(np.isnan(one).any() for one in log_probs)
    require(sound, "log_probs hold NaN: is the checkpoint sound?")


def require_limits(
    beam_width: int,
    token_min_logp: float,
    beam_prune_logp: float,
    blank_skip_threshold: float = 1.0,
) -> None:
    """Raises ``ValueError`` for limits within which no search finds anything."""
    require(beam_width >= 1, f"beam_width {beam_width}: at least 1")
    require(token_min_logp <= 0, f"token_min_logp {token_min_logp}: a logarithm, 0 or less")
    require(beam_prune_logp <= 0, f"beam_prune_logp {beam_prune_logp}: 0 or less")
    require(
        0 < blank_skip_threshold <= 1,
        f"blank_skip_threshold {blank_skip_threshold}: a probability; 1 skips nothing",
    )


def require_weights(alpha: float, beta: float, unk_score_offset: float) -> None:
    """Raises ``ValueError`` for weights of a language model that no search can use."""
    require(
        -math.inf < unk_score_offset <= 0,
        f"unk_score_offset {unk_score_offset}: a finite number, 0 or less",
    )
    require(0 <= alpha < math.inf, f"alpha {alpha}: 0 or more")
    require(math.isfinite(beta), f"beta {beta}: a finite number")
