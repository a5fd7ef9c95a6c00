"""CTC's loss and its gradient on a CPU (Graves et al., "Connectionist temporal classification", ICML 2006).

Forward and backward variables are products of hundreds of probabilities, and a state that no frame likes
yet may be e^-2000 times as probable as its neighbour and still lie on the only path. PyTorch's code for CPUs
adds their logarithms in float32, with four exponentials and logarithms a state. Here a number is a float64
and a power of ``BASE``: to add two, small integers are compared, and what is two powers smaller is not seen.
That takes a sixth of the time (``python -m bench.ctc``), where CTC with its inner losses was a fifth of a
training step.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asrlib.compiled import compiled
from asrlib.text import BLANK

BASE = 2.0**332  # the product of two mantissas, each of 1 / BASE to 1, is no denormal
LN_BASE = 332 * math.log(2)
ZERO = -(2**30)  # the power of BASE that 0 has: below that of any product


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_probs, frames, targets, target_lengths):
        losses = np.empty(len(log_probs))
        gradient = torch.zeros_like(log_probs if ctx.needs_input_grad[0] else log_probs[:0])
        arrays = (x.numpy() for x in (log_probs, frames, targets, target_lengths, gradient))
        _all_losses(*arrays, losses)
        ctx.save_for_backward(gradient)
        return torch.from_numpy(losses).to(log_probs.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, by_losses):
        (gradient,) = ctx.saved_tensors
        return gradient * by_losses.view(-1, 1, 1), None, None, None


def ctc_losses(
    log_probs: Tensor, frames: Tensor, targets: Tensor, target_lengths: Tensor
) -> Tensor:
    """−ln p(target) of each utterance, float32 [B]; infinite where there is no path.

    Args:
        log_probs: float32 [B, T', V] on the CPU, label 0 the blank.
        frames: T' of each utterance, int64 [B].
        targets: label ids, int64 [B, U]; beyond each length anything.
        target_lengths: int64 [B].

    Raises:
        ValueError: a target that is no label of ``log_probs``.
    """
    return _Losses.apply(log_probs.contiguous(), frames, targets, target_lengths)


@compiled
def _all_losses(log_probs, frames, targets, target_lengths, gradient, losses):
    """Fills ``losses`` [B], and ``gradient`` [B, T', V] of zeros unless that is empty."""
    for row in range(len(log_probs)):
        said, text = log_probs[row, : frames[row]], targets[row, : target_lengths[row]]
        by_label = gradient[row] if len(gradient) else said[:0]
        losses[row] = _loss(said, text, by_label)


@compiled
def _loss(log_probs, text, gradient):
    """−ln p(text) of one utterance; its gradient is taken from ``gradient``, unless that is empty."""
    size, states = len(log_probs), 2 * len(text) + 1
    if size == 0:
        return 0.0 if len(text) == 0 else np.inf
    labels, place = _distinct(text, log_probs.shape[1])
    p, power = _probabilities(log_probs, labels)
    skips = np.zeros(
        states + 2, np.bool_
    )  # a label that is not that before it needs no blank between
    for s in range(3, states, 2):
        skips[s] = text[s // 2] != text[s // 2 - 1]

    alpha, exponent = np.zeros((size, states)), np.full((size, states), ZERO, np.int32)
    for t in range(size):
        for s in range(max(0, states - 2 * (size - t)), min(states, 2 * t + 2)):
            if t == 0:
                m, e = 1.0, np.int32(0)
            else:
                m, e = alpha[t - 1, s], exponent[t - 1, s]
                if s > 0:
                    m, e = _plus(m, e, alpha[t - 1, s - 1], exponent[t - 1, s - 1])
                if skips[s]:
                    m, e = _plus(m, e, alpha[t - 1, s - 2], exponent[t - 1, s - 2])
            k = place[s]
            alpha[t, s], exponent[t, s] = _times(m, e, p[t, k], power[t, k])
    total, of_total = alpha[-1, -1], exponent[-1, -1]
    if states > 1:
        total, of_total = _plus(total, of_total, alpha[-1, -2], exponent[-1, -2])
    if total == 0:
        return np.inf
    if len(gradient):
        _subtract_occupancies(
            gradient, alpha, exponent, total, of_total, p, power, labels, place, skips
        )
    return -math.log(total) - of_total * LN_BASE


@compiled
def _subtract_occupancies(
    gradient, alpha, exponent, total, of_total, p, power, labels, place, skips
):
    """From ``gradient`` [T', V] the probability, given the text, that each frame says each label."""
    size, states = alpha.shape
    beta, raised = (
        np.zeros(states + 2),
        np.full(states + 2, ZERO, np.int32),
    )  # of what comes after t
    occupied = np.empty(len(labels))
    for t in range(size - 1, -1, -1):
        if t == size - 1:
            for s in range(max(0, states - 2), states):
                beta[s], raised[s] = 1.0, 0
        else:
            for s in range(states):
                k = place[s]
                beta[s], raised[s] = _times(beta[s], raised[s], p[t + 1, k], power[t + 1, k])
            for s in range(states):
                m, e = _plus(beta[s], raised[s], beta[s + 1], raised[s + 1])
                if skips[s + 2]:
                    m, e = _plus(m, e, beta[s + 2], raised[s + 2])
                beta[s], raised[s] = m, e
        occupied[:] = 0.0
        for s in range(max(0, states - 2 * (size - t)), min(states, 2 * t + 2)):
            share, e = alpha[t, s] * beta[s] / total, exponent[t, s] + raised[s] - of_total
            while e > 0 and share > 0:
                share, e = share * BASE, e - 1
            if e == -1:
                share, e = share / BASE, 0
            if e == 0:  # else it is too little to be seen
                occupied[place[s]] += share
        for k in range(len(labels)):
            gradient[t, labels[k]] -= occupied[k]


@compiled
def _plus(m, e, other, its):
    """The sum of two numbers, mantissa and power of BASE each."""
    if e == its:
        return m + other, e
    if e > its:
        return (m + other / BASE if e == its + 1 else m), e
    return (other + m / BASE if its == e + 1 else other), its


@compiled
def _times(m, e, other, its):
    m *= other
    if m == 0:
        return 0.0, np.int32(ZERO)
    e += its
    return (m * BASE, np.int32(e - 1)) if m < 1 / BASE else (m, np.int32(e))


@compiled
def _distinct(text, vocabulary):
    """The blank and the labels of ``text``, each once; and which of them each state says."""
    labels, place = [BLANK], np.zeros(2 * len(text) + 1, np.int64)
    seen = np.full(vocabulary, -1)
    for i, label in enumerate(text):
        if not 0 <= label < vocabulary:  # nothing else would keep it from writing beyond the arrays
            raise ValueError("targets have a label that log_probs do not")
        if seen[label] < 0:
            seen[label] = len(labels)
            labels.append(label)
        place[2 * i + 1] = seen[label]
    return np.array(labels), place


@compiled
def _probabilities(log_probs, labels):
    """Mantissas and powers of BASE [T', labels] of what ``log_probs`` says."""
    shape = len(log_probs), len(labels)
    p, power = np.zeros(shape), np.zeros(shape, np.int32)
    for t in range(len(log_probs)):
        for k in range(len(labels)):
            ln = np.float64(log_probs[t, labels[k]])
            if ln < -LN_BASE and ln != -np.inf:
                power[t, k] = -int(-ln / LN_BASE)
            p[t, k] = math.exp(ln - power[t, k] * LN_BASE)
    return p, power
