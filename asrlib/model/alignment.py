"""When CTC hears each label, and whether a speller looks there."""

import warnings

import torch
from torch import Tensor

from asrlib.text import BLANK

NEAR = 3  # encoder frames from CTC's time, on both sides, where attention is right
FLOOR = 1e-4  # of attention there: the gradient of its logarithm stays finite


def ctc_frames(log_probs: Tensor, labels: Tensor) -> Tensor:
    """The frame, float32 [U] on the CPU, in the middle of each label on CTC's best path.

    Args:
        log_probs: float32 [T', V] of one utterance's real frames, on the CPU.
        labels: int [U], U ≥ 1, of which CTC has a path in T' frames.
    """
    import torchaudio.functional  # nothing else in the library needs it

    with warnings.catch_warnings():  # of the function's future: it stays, as torchaudio now says
        warnings.simplefilter("ignore")
        path, scores = torchaudio.functional.forced_align(
            log_probs.unsqueeze(0), labels.unsqueeze(0), blank=BLANK
        )
        spans = torchaudio.functional.merge_tokens(path[0], scores[0], blank=BLANK)
    return torch.tensor([(span.start + span.end - 1) / 2 for span in spans])


def guidance_sum(
    attention: Tensor, log_probs: Tensor, frames: Tensor, texts: Tensor, lengths: Tensor
) -> Tensor:
    """−ln of the attention that a label has near CTC's time of it, summed over labels.

    Supervised attention (Mi et al., "Supervised attentions for neural machine translation", EMNLP 2016),
    the supervisor being the CTC head beside the speller; of CTC nothing is learned by it.

    Args:
        attention: [B, U + 1, T'].
        log_probs: [B, T', V], every row with a CTC path.
        frames: T' of each utterance, int [B].
        texts, lengths: labels int [B, U] and their number [B].
    """
    heard, total = log_probs.detach().float().cpu(), attention.new_zeros(())
    for row, (size, labels) in enumerate(zip(frames.tolist(), lengths.tolist(), strict=True)):
        if labels == 0:
            continue
        times = ctc_frames(heard[row, :size], texts[row, :labels].cpu())
        near = (torch.arange(attention.shape[2]) - times.unsqueeze(1)).abs() <= NEAR
        there = (attention[row, :labels] * near.to(attention.device)).sum(dim=1)
        total = total - (there + FLOOR).log().sum()
    return total
