"""What decoders ask of their options and their input."""

import math


def require(condition: bool, message: str) -> None:
    """Raises ``ValueError`` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)


def require_weights(alpha: float, beta: float, unk_score_offset: float) -> None:
    """Raises ``ValueError`` for weights of a language model that no search can use."""
    require(
        -math.inf < unk_score_offset <= 0,
        f"unk_score_offset {unk_score_offset}: a finite number, 0 or less",
    )
    require(0 <= alpha < math.inf, f"alpha {alpha}: 0 or more")
    require(math.isfinite(beta), f"beta {beta}: a finite number")
