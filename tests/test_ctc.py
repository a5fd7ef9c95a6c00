"""CTC's loss on a CPU beside PyTorch's in float64, and where float64 alone would not do."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from asrlib.model.ctc import ctc_losses
from asrlib.model.losses import torchs_losses
from asrlib.text import BLANK


def drawn(frames, labels, length, scale, seed=0):
    """Logits [3, T', V] in float64, and texts of ``length``, one less, and none; a label thrice in a row."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(3, frames, labels, generator=generator, dtype=torch.float64)
    targets = torch.randint(1, labels, (3, length), generator=generator)
    targets[0, length // 2 : length // 2 + 3] = targets[0, length // 2]
    return (
        logits,
        torch.tensor([frames, frames - 1, frames]),
        targets,
        torch.tensor([length, length - 1, 0]),
    )


def reference(logits, frames, targets, lengths):
    return torchs_losses(logits.log_softmax(-1), frames, targets, lengths)


@pytest.mark.parametrize("scale", [1, 5, 30])
@pytest.mark.parametrize(("frames", "labels", "length"), [(3, 3, 1), (40, 29, 12), (376, 29, 200)])
def test_losses_and_gradients_are_pytorchs(frames, labels, length, scale):
    logits, *rest = drawn(frames, labels, length, scale)
    weights = torch.tensor([1.0, 0.5, 2.0])
    exact = logits.clone().requires_grad_()
    expected = reference(exact, *rest)
    (expected * weights).sum().backward()
    ours = logits.float().requires_grad_()
    found = ctc_losses(ours.log_softmax(-1), *rest)
    (found * weights).sum().backward()
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(ours.grad, exact.grad.float(), rtol=1e-4, atol=1e-5)


def test_a_loss_sums_over_all_paths():
    logits, *_ = drawn(5, 3, 2, scale=1)
    log_probs, text = logits[:1].log_softmax(-1), [1, 2]
    total = 0.0
    for path in itertools.product(range(3), repeat=5):
        if [label for label, _ in itertools.groupby(path) if label != BLANK] == text:
            total += math.exp(sum(log_probs[0, t, label].item() for t, label in enumerate(path)))
    lengths = torch.tensor([5]), torch.tensor([text]), torch.tensor([2])
    found = ctc_losses(log_probs.float(), *lengths)
    assert found.item() == pytest.approx(-math.log(total), rel=1e-6)


def test_a_path_that_no_frame_likes_is_not_lost():
    """Sure blanks in all 400 frames: the text's states are e^-4000 times as probable as the blank's."""
    logits = torch.zeros(1, 400, 29, dtype=torch.float64)
    logits[..., BLANK] = 40.0
    rest = torch.tensor([400]), torch.arange(1, 29).repeat(4)[None, :100], torch.tensor([100])
    exact, ours = logits.clone().requires_grad_(), logits.float().requires_grad_()
    expected, found = reference(exact, *rest), ctc_losses(ours.log_softmax(-1), *rest)
    expected.sum().backward()
    found.sum().backward()
    assert expected.item() > 3500
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.grad, exact.grad.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("logit", [-900.0, -math.inf])
def test_a_label_that_is_all_but_impossible(logit):
    logits = torch.zeros(1, 4, 3, dtype=torch.float64)
    logits[0, 1:, 2] = logit
    rest = torch.tensor([4]), torch.tensor([[1, 2]]), torch.tensor([2])
    expected, found = reference(logits, *rest), ctc_losses(logits.float().log_softmax(-1), *rest)
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=0)


def test_without_a_path_a_loss_is_infinite_and_without_a_number_none():
    logits, frames, _, _ = drawn(3, 4, 2, scale=1)
    texts, lengths = torch.tensor([[1, 1], [1, 2], [1, 2]]), torch.tensor([2, 2, 2])
    frames[1] = 1
    logits[2] = math.nan
    found = ctc_losses(logits.float().log_softmax(-1), frames, texts, lengths)
    assert found[0].isfinite()
    assert found[1] == math.inf
    assert found[2].isnan()


def test_what_lies_beyond_the_lengths_changes_nothing():
    logits, frames, targets, lengths = drawn(20, 9, 6, scale=1)
    once = logits.float().log_softmax(-1).requires_grad_()
    longer = F.pad(once.detach(), (0, 0, 0, 7), value=math.nan).requires_grad_()
    found = ctc_losses(longer, frames, F.pad(targets, (0, 3), value=-5), lengths)
    found.sum().backward()
    expected = ctc_losses(once, frames, targets, lengths)
    expected.sum().backward()
    assert torch.equal(found, expected)
    assert torch.equal(longer.grad[:, :20], once.grad)
    assert not longer.grad[:, 20:].any()


@pytest.mark.parametrize("label", [-1, 9, 2**40])
def test_a_label_that_the_model_does_not_have_is_an_error(label):
    logits, frames, targets, lengths = drawn(20, 9, 6, scale=1)
    targets[1, 2] = label
    with pytest.raises(ValueError, match="a label that log_probs do not"):
        ctc_losses(logits.float().log_softmax(-1), frames, targets, lengths)
