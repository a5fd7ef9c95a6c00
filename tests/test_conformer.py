"""What is special to the Conformer; test_models.py has what it shares with all models."""

import re

import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F

from asrlib.build import build_encoder
from asrlib.model import Conformer, LogMel
from asrlib.model.attention import SelfAttention, attend, rotate, rotations
from asrlib.model.conformer import SIZES, ConvolutionModule, Subsampling, add, real_frames
from asrlib.model.dropout import Dropout, StochasticDepth
from asrlib.text import BPETextEncoder, CTCTextEncoder

F_BINS, V = 40, 29


def make(**options):
    torch.manual_seed(0)
    return Conformer(F_BINS, V, "xxs", **options).eval()


def test_a_score_depends_on_positions_by_their_distance():
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 1, 16)
    turned = [
        rotate(x.expand(1, 900, 1, 1, 16), rotations(900, 16))[0, :, 0, 0] for x in (query, key)
    ]
    scores = turned[0] @ turned[1].T
    for distance in (-40, -1, 0, 1, 700):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=2e-3, rtol=0)
    assert scores[0].std() > 0.1  # and not all alike


def test_rotations_keep_the_length_and_leave_the_first_frame_as_it_is():
    x = torch.randn(2, 50, 1, 3, 8)
    turned = rotate(x, rotations(50, 8))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, 0], x[:, 0])


def test_attention_is_what_its_definition_says():
    torch.manual_seed(0)
    layer, x = SelfAttention(24, 2), torch.randn(2, 9, 24)
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    query, key, value = layer.query_key_value(x).view(2, 9, 3, 2, 12).permute(2, 0, 3, 1, 4)
    by = rotations(9, 12).squeeze(1).transpose(0, 1)
    query, key = (
        torch.view_as_real(torch.view_as_complex(y.reshape(2, 2, 9, 6, 2)) * by).flatten(-2)
        for y in (query, key)
    )
    scores = (query @ key.transpose(2, 3) / 12**0.5).masked_fill(~mask[:, None, None], -torch.inf)
    expected = layer.out((scores.softmax(-1) @ value).transpose(1, 2).reshape(2, 9, 24))
    torch.testing.assert_close(layer(x, rotations(9, 12), mask), expected)


def test_heads_that_are_padded_for_a_gpu_attend_as_before():
    query, key, value = torch.randn(3, 2, 4, 9, 36).unbind()
    keys = (torch.arange(9) < torch.tensor([[9], [4]]))[:, None, None]
    as_they_are, padded = (attend(query, key, value, keys, aligned) for aligned in (False, True))
    assert padded.shape == query.shape
    torch.testing.assert_close(padded, as_they_are)


def test_padded_keys_are_never_attended():
    torch.manual_seed(0)
    layer, x = SelfAttention(16, 2), torch.randn(2, 10, 16)
    by, mask = rotations(10, 8), torch.arange(10) < torch.tensor([[10], [6]])
    before = layer(x, by, mask)[1, :6]
    x[1, 6:] = 1e4
    torch.testing.assert_close(layer(x, by, mask)[1, :6], before)


def test_the_convolution_sees_zeros_beyond_an_utterance():
    torch.manual_seed(0)
    layer, x = ConvolutionModule(16, kernel=7, dropout=0.0), torch.randn(2, 10, 16)
    mask = torch.arange(10) < torch.tensor([[10], [6]])
    torch.testing.assert_close(layer(x, mask)[1:, :6], layer(x[1:, :6], None))


def test_the_depthwise_convolution_is_one_over_time():
    torch.manual_seed(0)
    layer, x = ConvolutionModule(16, kernel=7, dropout=0.0), torch.randn(2, 10, 16)
    gated = F.glu(layer.gate(layer.norm(x)), dim=-1).transpose(1, 2)
    weight, bias = layer.depthwise.weight.squeeze(2), layer.depthwise.bias
    y = F.conv1d(gated, weight, bias, padding=3, groups=16).transpose(1, 2)
    torch.testing.assert_close(layer(x, None), layer.out(F.silu(layer.depthwise_norm(y))))


def test_a_mask_is_made_only_where_there_is_padding():
    assert real_frames(torch.tensor([7, 7]), 7, torch.device("cpu")) is None
    mask = real_frames(torch.tensor([7, 2, 0]), 7, torch.device("cpu"))
    assert mask.sum(dim=1).tolist() == [7, 2, 1]


def test_an_empty_row_makes_no_nan_and_reaches_no_other():
    model, x = make(), torch.randn(2, F_BINS, 40)
    x[1] = torch.nan
    out = model(x, torch.tensor([40, 0]))["log_probs"]
    assert out.isfinite().all()
    torch.testing.assert_close(out[:1], model(x[:1], torch.tensor([40]))["log_probs"])
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
@pytest.mark.parametrize("factor", [4, 8])
def test_subsampling_rounds_up(factor):
    subsampling, lengths = Subsampling(F_BINS, 2, 8, factor), torch.arange(1, 201)
    expected = (lengths + factor - 1) // factor
    assert torch.equal(subsampling.output_length(lengths), expected)
    for length in (1, 2, 3, 4, 5, 8, 9, 199):
        out = subsampling(torch.zeros(1, F_BINS, length), torch.tensor([length]))
        assert out.shape == (1, expected[length - 1], 8)


@torch.no_grad()
def test_eightfold_subsampling_ignores_padding():
    model, x = make(subsampling=8), torch.randn(2, F_BINS, 90)
    together = model(x, torch.tensor([90, 41]))
    assert model.stride == 8
    assert together["log_probs_length"].tolist() == [12, 6]
    alone = model(x[1:, :, :41], torch.tensor([41]))["log_probs"]
    torch.testing.assert_close(together["log_probs"][1:, :6], alone, atol=1e-4, rtol=0)


def test_intermediate_outputs_are_those_of_the_blocks_by_the_shared_head():
    model, x, length = (
        make(intermediate_layers=[1]),
        torch.randn(2, F_BINS, 50),
        torch.tensor([50, 9]),
    )
    seen = []
    model.blocks[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    out = model(x, length)
    (inner,) = out["intermediate_log_probs"]
    assert inner.shape == out["log_probs"].shape
    torch.testing.assert_close(inner, model.head(seen[0]).log_softmax(-1))
    assert not torch.equal(inner, out["log_probs"])
    assert "intermediate_log_probs" not in make()(x, length)


def test_stochastic_depth_keeps_the_expectation_and_drops_whole_utterances():
    torch.manual_seed(0)
    depth, x = StochasticDepth(0.3), torch.zeros(20_000, 1, 2)
    out = add(x, torch.ones_like(x), depth(x), 0.5)
    assert abs(float(out.mean()) - 0.5) < 0.01
    assert torch.equal(out[..., 0], out[..., 1])
    assert out.unique().tolist() == pytest.approx([0.0, 0.5 / 0.7])


@torch.no_grad()
def test_in_evaluation_every_block_counts():
    x, length = torch.randn(2, F_BINS, 50), torch.tensor([50, 30])
    full, deep = make(dropout=0.0)(x, length), make(dropout=0.0, stochastic_depth=0.5)
    assert torch.equal(deep(x, length)["log_probs"], full["log_probs"])
    deep.train()
    torch.manual_seed(1)
    first = deep(x, length)["log_probs"]
    torch.manual_seed(1)
    assert torch.equal(deep(x, length)["log_probs"], first)
    assert not torch.equal(first, full["log_probs"])


def test_later_blocks_are_left_out_more_often():
    rates = [block.stochastic_depth.rate for block in make(stochastic_depth=0.2).blocks]
    assert rates == [0.1, 0.2]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_the_expectation_and_depends_on_the_seed_alone(rate):
    layer, x = Dropout(rate), torch.ones(301, 333, requires_grad=True)
    torch.manual_seed(3)
    out = layer(x)
    assert abs(float((out == 0).float().mean()) - rate) < 0.01
    assert abs(float(out.detach().mean()) - 1.0) < 0.02
    out.sum().backward()
    assert torch.equal(x.grad, out)
    torch.manual_seed(3)
    assert torch.equal(layer(x), out)
    assert not torch.equal(layer(x), out)
    assert layer.eval()(x) is x


@pytest.mark.parametrize(("size", "paper"), [("s", 10.3e6), ("m", 30.7e6), ("l", 118.8e6)])
def test_the_parameters_are_the_papers_but_for_what_the_docstring_names(size, paper):
    with torch.device("meta"):
        model = Conformer(80, 1024, size)
    d, layers, h = SIZES[size].width, SIZES[size].layers, 320 if size == "s" else 640
    encoder = sum(p.numel() for p in model.parameters()) - sum(
        p.numel() for p in model.head.parameters()
    )
    positions = layers * (d * d + 2 * d)
    ours = sum(p.numel() for p in model.subsampling.parameters())
    subsampling = 29 * d * d + 12 * d - (ours - 2 * d)
    transducer = 128 * 1024 + 4 * h * (h + 130) + 640 * (d + h + 2) + 641 * 1024
    assert abs(encoder + positions + subsampling + transducer - paper) < 0.01 * paper


@torch.no_grad()
def test_half_a_minute_more_or_less_is_no_matter():
    """35 s, in one piece and as the first of two rows."""
    model, x = make(), torch.randn(2, F_BINS, 3500)
    alone = model(x[:1], torch.tensor([3500]))["log_probs"]
    together = model(x, torch.tensor([3500, 1]))["log_probs"]
    assert alone.shape == (1, 875, V)
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [{"size": "xxl"}, {"subsampling": 2}, {"intermediate_layers": [2]}, {"stochastic_depth": 1.5}],
)
def test_an_option_that_does_not_exist_is_an_error_that_names_it(wrong):
    with pytest.raises(ValueError, match=re.escape(repr(next(iter(wrong.values()))))):
        Conformer(F_BINS, V, **{"size": "xxs"} | wrong)


def test_eightfold_subsampling_is_refused_for_characters():
    section = {"_target_": "asrlib.model.Conformer", "size": "xxs", "subsampling": 8}
    config = OmegaConf.create({"model": section})
    with pytest.raises(ValueError, match=r"80 ms.*bpe"):
        build_encoder(config, LogMel(F_BINS), CTCTextEncoder())
    pieces = BPETextEncoder("ab ", [])
    assert build_encoder(config, LogMel(F_BINS), pieces).stride == 8
