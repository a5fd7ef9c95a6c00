"""Jasper and QuartzNet are the papers' networks, and padding does not reach them in training either."""

from copy import deepcopy

import pytest
import torch

from asrlib.model import Jasper, QuartzNet
from asrlib.model.convolution import Conv1d
from asrlib.model.jasper import JASPER_SIZES, QUARTZNET_SIZES, MaskedConv1d

N_MELS, V = 20, 29
TINY = {
    "jasper": lambda: Jasper(N_MELS, V, "xs", dense=False, dropout=0.0),
    "jasper-dense": lambda: Jasper(N_MELS, V, "xs", dropout=0.0),
    "quartznet": lambda: QuartzNet(N_MELS, V, "xs"),
}


@pytest.fixture(params=TINY)
def model(request):
    torch.manual_seed(0)
    model = TINY[request.param]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".norm." in name:  # as after some training: a bias would not keep padding at 0
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(
    ("kind", "options", "millions"),
    [
        (QuartzNet, {"size": "5x5"}, 6.7),
        (QuartzNet, {"size": "10x5"}, 12.8),
        (QuartzNet, {"size": "15x5"}, 18.9),
        (Jasper, {"size": "10x3", "dense": False}, 201),
        (Jasper, {"size": "10x5"}, 333),
    ],
)
def test_the_papers_count_the_same_parameters(kind, options, millions):
    with torch.device("meta"):
        model = kind(n_mels=64, vocabulary_size=29, **options)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(millions * 1e6, rel=0.005)


@pytest.mark.parametrize(("kind", "sizes"), [(Jasper, JASPER_SIZES), (QuartzNet, QUARTZNET_SIZES)])
def test_sizes_grow(kind, sizes):
    with torch.device("meta"):
        models = [kind(n_mels=80, vocabulary_size=29, size=size) for size in sizes]
    counts = [sum(p.numel() for p in model.parameters()) for model in models]
    assert counts == sorted(counts)


def test_quartznets_kernels_begin_narrow_and_keep_their_power():
    torch.manual_seed(0)
    layer = MaskedConv1d(512, 8, kernel=75, separable=True)
    power = layer.conv[0].weight.detach().square()
    assert power.sum(dim=-1).mean() == pytest.approx(1, rel=0.1)
    assert power[..., 33:42].sum() > 0.99 * power.sum()


@pytest.mark.parametrize("kind", [Jasper, QuartzNet])
def test_a_size_that_does_not_exist_is_an_error_that_names_it(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__} .*'xs'.*'5x4'"):
        kind(N_MELS, V, size="5x4")


@pytest.mark.parametrize(
    ("kind", "reach"),
    [
        # prologue 16; at its stride of 2: two layers in each block, the epilogue dilated by 2
        (QuartzNet, 16 + 2 * (2 * (16 + 19 + 25 + 31 + 37) + 2 * 43)),
        (Jasper, 5 + 2 * (5 + 6 + 8 + 10 + 12 + 2 * 14)),
    ],
)
def test_an_output_sees_as_far_as_the_paper_says(kind, reach):
    model = kind(1, 1, "xs").eval().double()
    with torch.no_grad():
        for parameter in model.parameters():  # all positive: no path cancels another
            parameter.fill_(1.0)
    frames, centre = 2 * reach + 21, reach + 10 - reach % 2
    x = torch.ones(1, 1, frames, dtype=torch.float64, requires_grad=True)
    hidden = []
    model.head.register_forward_pre_hook(lambda head, inputs: hidden.append(inputs[0]))
    model(x, torch.tensor([frames]))
    hidden[0][0, centre // 2].sum().backward()
    seen = x.grad[0, 0].nonzero().flatten()
    assert (int(seen[0]), int(seen[-1])) == (centre - reach, centre + reach)


def inputs(padding=0.0, extra=0):
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([61, 1, 40])
    x = torch.randn(3, N_MELS, 61, generator=generator)
    x = torch.cat([x, torch.zeros(3, N_MELS, extra)], dim=2)
    for row, length in enumerate(lengths.tolist()):
        x[row, :, length:] = padding
    return x, lengths


def train_once(model, x, lengths):
    """What one training step leaves: real outputs, gradients, running statistics."""
    model.train()
    model.zero_grad()
    out = model(x.to(model.head.weight.dtype), lengths)
    real = [
        row[:length]
        for row, length in zip(out["log_probs"], out["log_probs_length"].tolist(), strict=True)
    ]
    torch.cat(real)[:, 0].sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    return torch.cat(real).detach(), gradients, dict(model.named_buffers())


@pytest.mark.parametrize("changed", [{"padding": 1e3}, {"extra": 37}, {"padding": 5.0, "extra": 8}])
def test_padding_changes_nothing_in_training_either(model, changed):
    """In float64: with statistics of few frames, float32 loses half of the digits of a gradient."""
    copy = deepcopy(model)
    expected = train_once(model.double(), *inputs())
    found = train_once(copy.double(), *inputs(**changed))
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_one_utterance_of_one_frame_can_be_trained_on(model, dtype):
    x = torch.randn(1, N_MELS, 1, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", dtype=dtype):
        out = model.train()(x, torch.tensor([1]))
    assert out["log_probs"].shape == (1, 1, V) and out["log_probs"].dtype == torch.float32
    out["log_probs"].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("frames", [1, 6, 7])
def test_in_bfloat16_every_tap_has_a_gradient_also_one_that_meets_only_padding(frames):
    layer, dtypes = MaskedConv1d(N_MELS, 64, kernel=11, stride=2).train(), []
    layer.conv.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    weight, mask = layer.conv.weight, torch.ones(2, (frames + 1) // 2, dtype=torch.bool)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(torch.randn(2, N_MELS, frames), mask)
        for dtype in (torch.float32, torch.bfloat16):  # freed memory, for gradients to be made in
            [torch.full_like(weight, torch.nan, dtype=dtype) for _ in range(4)]
        layer.zero_grad()
        y.float().square().sum().backward()
        assert weight.grad.isfinite().all()
    # the outermost taps reach 5 frames from every other frame
    assert set(dtypes) == {torch.bfloat16 if frames == 7 else torch.float32}


def test_evaluation_after_training_does_not_depend_on_the_batch(model):
    x, lengths = inputs()
    for _ in range(3):
        train_once(model, x, lengths)
    with torch.no_grad():
        together = model.eval()(x, lengths)["log_probs"]
        for row, length in enumerate(lengths.tolist()):
            alone = model(x[row : row + 1, :, :length], lengths[row : row + 1])["log_probs"][0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-4, rtol=0)


def test_in_a_dense_jasper_every_earlier_state_joins_in_every_block():
    dense, plain = Jasper(N_MELS, V, "xs"), Jasper(N_MELS, V, "xs", dense=False)
    assert [len(block.residuals) for block in dense.blocks] == [1, 2, 3, 4, 5]
    assert [len(block.residuals) for block in plain.blocks] == [1, 1, 1, 1, 1]
    # silence all convolutions and all residuals but that of the prologue into the last block
    with torch.no_grad():
        for block in dense.blocks:
            for convolution in [*block.convolutions, *block.residuals]:
                convolution.norm.weight.zero_()
        dense.blocks[-1].residuals[0].norm.weight.fill_(1.0)
    dense.eval()
    outputs = [dense(x, torch.tensor([9]))["log_probs"] for x in torch.randn(2, 1, N_MELS, 9)]
    assert not torch.allclose(*outputs, atol=1e-3)


def test_a_dropout_that_would_grow_to_1_is_refused_as_it_was_given():
    with pytest.raises(ValueError, match=r"model\.dropout=0\.5: .* in \[0, 0\.5\)"):
        Jasper(N_MELS, V, "xs", dropout=0.5)


def test_dropout_grows_as_in_the_paper():
    model = Jasper(N_MELS, V, "xs", dropout=0.2)
    blocks = [model.prologue, *model.blocks, *model.epilogue]
    rates = [block.activation[1].rate for block in blocks]
    assert rates == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4])


@pytest.mark.parametrize("frames", [1, 2, 12, 50, 51])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (1, 3), (2, 2), (3, 2)])
@pytest.mark.parametrize(
    ("kernel", "groups"), [(9, 6), (9, 1), (1, 1)], ids=["depthwise", "full", "of one frame"]
)
def test_the_convolution_is_the_plain_one(frames, stride, dilation, kernel, groups):
    torch.manual_seed(0)
    options = {"stride": stride, "dilation": dilation, "padding": kernel // 2 * dilation}
    ours = Conv1d(6, 6, kernel, groups=groups, **options)
    plain = torch.nn.Conv1d(6, 6, kernel, groups=groups, **options)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(3, 6, frames)
    for module in (ours, plain):
        module(x).square().sum().backward()
    torch.testing.assert_close(ours(x), plain(x))
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad, atol=1e-3, rtol=1e-4)


def test_a_kernel_longer_than_the_utterance_has_a_gradient_in_bfloat16():
    for _ in range(20):  # what was undefined was so at times only
        convolution = Conv1d(64, 64, 87, padding=86, dilation=2, groups=64)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            convolution(torch.randn(2, 64, 3)).float().sum().backward()
        assert convolution.weight.grad.isfinite().all()
