"""Masked batch norm: equal to PyTorch's where nothing is padding, blind to padding where something is."""

import pytest
import torch
from torch import nn

from asrlib.model.masking import length_mask
from asrlib.model.norm import MaskedBatchNorm1d

C, T = 6, 15


def pair(**options):
    """Ours and PyTorch's, with the same random weights."""
    ours, theirs = MaskedBatchNorm1d(C, **options), nn.BatchNorm1d(C, **options)
    with torch.no_grad():
        for name in ("weight", "bias"):
            values = torch.randn(C, generator=torch.Generator().manual_seed(len(name)))
            getattr(ours, name).copy_(values)
            getattr(theirs, name).copy_(values)
    return ours, theirs


def features(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 2


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"eps": 1e-2, "momentum": 0.3}])
def test_without_padding_it_equals_pytorch(training, options):
    ours, theirs = pair(**options)
    for step in range(3):
        results = []
        for norm in (ours.train(training), theirs.train(training)):
            norm.zero_grad()
            x = features(4, C, T, seed=step).requires_grad_()
            y = norm(x, torch.ones(4, T, dtype=torch.bool)) if norm is ours else norm(x)
            (y * features(4, C, T, seed=9)).sum().backward()
            results.append([y, x.grad, norm.weight.grad, norm.bias.grad])
        torch.testing.assert_close(*results, atol=2e-5, rtol=1e-5)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    assert bool((ours.running_mean != 0).any()) == training


LENGTHS = torch.tensor([T, 4, 1, 9])


def test_statistics_are_those_of_the_real_frames():
    """PyTorch's, given all real frames in one row, agree in outputs, gradients and running statistics."""
    ours, theirs = pair()
    mask = length_mask(LENGTHS, T, "cpu")
    x, weights = features(4, C, T), features(4, C, T, seed=1)

    def frames(values):
        return values.transpose(1, 2)[mask].T.unsqueeze(0)

    padded, packed = x.clone().requires_grad_(), frames(x).clone().requires_grad_()
    y, expected = ours(padded, mask), theirs(packed)
    (y * weights).sum().backward()
    (expected * frames(weights)).sum().backward()
    torch.testing.assert_close(frames(y), expected)
    torch.testing.assert_close(frames(padded.grad), packed.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("content", [0.0, 1e4, float("inf"), float("nan")])
def test_what_padding_holds_changes_no_bit(training, content):
    mask = length_mask(LENGTHS, T, "cpu")
    results = []
    for padding in (1.0, content):
        norm = pair()[0].train(training)
        x = features(4, C, T).masked_fill(~mask.unsqueeze(1), padding).requires_grad_()
        y = norm(x, mask)
        (y * features(4, C, T, seed=1)).sum().backward()
        assert not y.masked_select(~mask.unsqueeze(1)).any()
        assert not x.grad.masked_select(~mask.unsqueeze(1)).any()
        results.append([y, x.grad, norm.bias.grad, norm.running_mean, norm.running_var])
        if training:  # PyTorch's evaluation multiplies the padding by a gradient of 0
            results[-1].append(norm.weight.grad)
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_more_padding_changes_nothing():
    results = []
    for extra in (0, 7):
        norm = pair()[0]
        x = torch.cat([features(4, C, T), features(4, C, extra, seed=2)], dim=2)
        y = norm(x, length_mask(LENGTHS, T + extra, "cpu"))
        results.append([y[:, :, :T], norm.running_mean, norm.running_var])
    torch.testing.assert_close(*results)


def test_the_gradient_is_the_derivative():
    mask = length_mask(torch.tensor([5, 2]), 5, "cpu")
    norm = MaskedBatchNorm1d(3).double()
    x = features(2, 3, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: norm(x, mask), (x,))


def test_an_evaluated_utterance_does_not_depend_on_the_others():
    norm = pair()[0]
    norm(features(4, C, T), length_mask(LENGTHS, T, "cpu"))
    norm.eval()
    x = features(4, C, T, seed=3)
    together = norm(x, length_mask(LENGTHS, T, "cpu"))
    for row, length in enumerate(LENGTHS.tolist()):
        alone = norm(x[row : row + 1, :, :length], torch.ones(1, length, dtype=torch.bool))
        torch.testing.assert_close(together[row, :, :length], alone[0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_dtype_and_float32_statistics(training, dtype):
    """A mean of 300 with a deviation of 3: the sum would be infinite in float16, the variance noise."""
    x = (features(4, C, 500) + 298).to(dtype)
    mask = length_mask(torch.tensor([500, 300, 20, 1]), 500, "cpu")
    exact, half = pair()[0].train(training), pair()[0].train(training)
    expected = exact(x.float(), mask)
    with torch.autocast("cpu", dtype=dtype):
        y = half(x.requires_grad_(), mask)
    assert y.dtype == dtype
    # halves of a unit in the last place of values up to 2**9 in evaluation, up to 2**3 in training
    torch.testing.assert_close(y.float(), expected, atol=1e-3, rtol=2**-8)
    assert torch.equal(half.running_mean, exact.running_mean)
    assert torch.equal(half.running_var, exact.running_var)
    y.sum().backward()
    assert x.grad.dtype == dtype and half.weight.grad.dtype == torch.float32


def test_a_single_frame_is_no_error():
    norm = pair()[0]
    y = norm(features(1, C, 1), torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(y[0, :, 0], norm.bias)
    assert torch.isfinite(norm.running_var).all()


def test_only_the_input_itself_is_kept_for_the_backward_pass():
    kept = []
    norm = pair()[0]
    x = features(4, C, T).bfloat16().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        norm(x, length_mask(LENGTHS, T, "cpu"))
    large = [t for t in kept if t.numel() == x.numel()]
    assert len(large) == 1 and large[0].data_ptr() == x.data_ptr()
