"""CTC losses are sums over labels; what has no path is named, not hidden."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from asrlib.model import MLP, CTCLoss, ctc_feasible, losses

V = 5


@st.composite
def batches(draw, min_size=1):
    """A batch of random ``log_probs`` and few labels, so that many rows are barely feasible."""
    size = draw(st.integers(min_size, 5))
    texts = [draw(st.lists(st.integers(1, 2), max_size=6)) for _ in range(size)]
    frames = [draw(st.integers(1, 12)) for _ in range(size)]
    padding = draw(st.sampled_from([0, 1, 2]))  # beyond a length may be anything, labels as well
    return make_batch(texts, frames, padding, seed=draw(st.integers(0, 99)))


def make_batch(texts, frames, padding=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    longest = max(map(len, texts))
    rows = [text + [padding] * (longest - len(text)) for text in texts]
    logits = torch.randn(len(texts), max(frames), V, generator=generator, requires_grad=True)
    return {
        "logits": logits,
        "log_probs": logits.log_softmax(dim=-1),
        "log_probs_length": torch.tensor(frames),
        "text_encoded": torch.tensor(rows, dtype=torch.int64),
        "text_encoded_length": torch.tensor([len(text) for text in texts]),
    }


def torchs_losses(batch):
    return F.ctc_loss(
        batch["log_probs"].transpose(0, 1),
        batch["text_encoded"],
        batch["log_probs_length"],
        batch["text_encoded_length"],
        reduction="none",
    )


def feasible_rows(batch):
    return ctc_feasible(
        batch["log_probs_length"], batch["text_encoded"], batch["text_encoded_length"]
    )


@settings(deadline=None)
@given(batches())
def test_an_utterance_is_feasible_exactly_where_torchs_loss_is_finite(batch):
    assert torch.equal(feasible_rows(batch), torch.isfinite(torchs_losses(batch)))


@settings(deadline=None)
@given(batches())
def test_infeasible_rows_are_named_and_add_nothing(batch):
    losses = torchs_losses(batch)
    finite = torch.isfinite(losses)
    loss = CTCLoss()(batch)
    assert loss.infeasible == [i for i, ok in enumerate(finite) if not ok]
    assert loss.count == int(batch["text_encoded_length"][finite].sum())
    assert loss.count == CTCLoss().count(batch, batch["log_probs_length"])
    torch.testing.assert_close(loss.total, losses[finite].sum(), atol=1e-4, rtol=1e-4)


@settings(deadline=None)
@given(batches())
def test_the_gradient_of_an_infeasible_row_is_zero_and_all_are_finite(batch):
    loss = CTCLoss()(batch)
    loss.total.backward()
    gradient = batch["logits"].grad
    assert torch.isfinite(gradient).all()
    assert not gradient[loss.infeasible].any()


def test_a_batch_without_any_path_is_a_zero_with_a_gradient():
    batch = make_batch([[1, 1, 1], [1, 2]], frames=[3, 1])
    loss = CTCLoss()(batch)
    assert (loss.total.item(), loss.count, loss.infeasible) == (0.0, 0, [0, 1])
    loss.total.backward()
    assert not batch["logits"].grad.any()


def test_repeats_need_a_frame_between_them():
    batch = make_batch([[1, 1], [1, 1], [1, 2], [1, 2]], frames=[2, 3, 1, 2])
    assert feasible_rows(batch).tolist() == [False, True, False, True]


def test_a_path_through_a_single_frame_is_its_log_probability():
    batch = make_batch([[3]], frames=[1])
    torch.testing.assert_close(CTCLoss()(batch).total, -batch["log_probs"][0, 0, 3])


@settings(deadline=None)
@given(batches(min_size=2))
def test_the_loss_of_a_batch_is_the_sum_of_single_utterances(batch):
    whole, total, count = CTCLoss()(batch), 0.0, 0
    for i in range(len(batch["logits"])):
        frames = int(batch["log_probs_length"][i])
        one = {key: value[i : i + 1] for key, value in batch.items()}
        one["log_probs"] = one["log_probs"][:, :frames]
        loss = CTCLoss()(one)
        total, count = total + loss.total, count + loss.count
    torch.testing.assert_close(whole.total, total, atol=1e-4, rtol=1e-4)
    assert whole.count == count


def test_without_numba_pytorchs_losses_take_the_place_of_ours(monkeypatch):
    batch = make_batch([[1, 2], [2, 2, 1]], [9, 12])
    ours = CTCLoss()(batch).total
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("asrlib.compiled", "asrlib.model.ctc"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    losses._losses_on_a_cpu.cache_clear()
    assert losses._losses_on_a_cpu() is losses.torchs_losses
    torch.testing.assert_close(CTCLoss()(batch).total, ours)
    losses._losses_on_a_cpu.cache_clear()


def test_half_precision_log_probs_are_summed_in_float32():
    batch = make_batch([[1, 2], [2]], frames=[6, 4])
    batch["log_probs"] = batch["log_probs"].half()
    assert CTCLoss()(batch).total.dtype == torch.float32


def test_accumulation_over_unequal_batches_gives_the_gradient_of_one():
    spectrogram = torch.randn(6, 20, 60, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([60, 31, 44, 60, 15, 52])
    texts = [[1, 2, 3], [4], [1, 1], [2, 3, 4, 1, 2, 3], [3, 2], [1, 4, 1]]
    labels = make_batch(texts, frames=[1] * 6)

    def gradient(cuts):
        torch.manual_seed(0)
        model = MLP(20, V, width=16)
        losses = []
        for rows in cuts:
            batch = {key: labels[key][rows] for key in ("text_encoded", "text_encoded_length")}
            losses.append(CTCLoss()(batch | model(spectrogram[rows], lengths[rows])))
        count = sum(loss.count for loss in losses)
        assert count == 17
        for loss in losses:
            (loss.total / count).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    whole = gradient([slice(0, 6)])
    torch.testing.assert_close(gradient([slice(0, 4), slice(4, 5), slice(5, 6)]), whole)
    torch.testing.assert_close(gradient([slice(i, i + 1) for i in range(6)]), whole)


WEIGHTS = {"intermediate": 0.3, "consistency": 0.2}


def make_views(texts, frames, views=2, inner=2, padding=0, seed=0):
    """A batch as the trainer makes it: ``views`` of each utterance and ``inner`` outputs."""
    batch = make_batch(texts, frames, padding, seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    shape = (1 + inner, views * len(texts), max(frames), V)
    logits = torch.randn(shape, generator=generator, requires_grad=True)
    outer, *others = logits.log_softmax(dim=-1)
    lengths = torch.tensor(frames * views)
    return batch | {
        "logits": logits,
        "log_probs": outer,
        "log_probs_length": lengths,
        "intermediate_log_probs": others,
    }


def mean_ctc(batch, log_probs, views):
    """Torch's CTC of each view, summed over what has a path, mean over the views."""
    total = 0.0
    for rows in log_probs.chunk(views):
        alone = batch | {
            "log_probs": rows,
            "log_probs_length": batch["log_probs_length"][: len(rows)],
        }
        losses = torchs_losses(alone)
        total = total + losses[torch.isfinite(losses)].sum() / views
    return total


@pytest.mark.parametrize("views", [1, 2])
def test_intermediate_ctc_is_the_weighted_mean_of_the_layers(views):
    batch = make_views([[1, 2, 2], [3], [1, 1, 1]], frames=[9, 4, 3], views=views)  # the last: none
    outer = mean_ctc(batch, batch["log_probs"], views)
    inner = sum(mean_ctc(batch, x, views) for x in batch["intermediate_log_probs"]) / 2
    loss = CTCLoss(intermediate=0.3)(batch)
    torch.testing.assert_close(loss.total, 0.7 * outer + 0.3 * inner)
    torch.testing.assert_close(loss.parts, {"ctc": outer.detach(), "intermediate": inner.detach()})
    assert (loss.count, loss.infeasible) == (4, [2])


def test_consistency_is_half_the_symmetric_divergence_of_each_real_frame():
    batch = make_views([[1, 2], [3]], frames=[6, 2])
    loss = CTCLoss(consistency=0.2)(batch)
    expected = 0.0
    for row, frames in enumerate([6, 2]):
        for t in range(frames):
            p, q = (batch["log_probs"][row + view, t].exp().tolist() for view in (0, 2))
            expected += sum(
                (a - b) * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)
            )
    assert loss.parts["consistency"].item() == pytest.approx(expected / 2, rel=1e-5)
    ctc = mean_ctc(batch, batch["log_probs"], 2)
    torch.testing.assert_close(loss.total, ctc + 0.2 * loss.parts["consistency"])
    assert loss.count == CTCLoss(**WEIGHTS).count(batch, torch.tensor([6, 2])) == 3  # not twice


def test_each_view_learns_from_the_other_as_it_is():
    batch = make_views([[1]], frames=[3], inner=0)
    (CTCLoss(consistency=0.2)(batch).total - CTCLoss()(batch).total).backward()
    (p, q) = batch["log_probs"].detach().exp()
    # of KL(q || softmax(z)) in z, with q a constant: softmax(z) - q; each direction counts half
    expected = 0.2 * torch.stack([p - q, q - p]) / 2
    torch.testing.assert_close(batch["logits"].grad[0], expected, atol=1e-6, rtol=1e-4)


def test_equal_views_agree_and_cost_what_one_costs():
    once = make_batch([[1, 2], [3, 3]], frames=[6, 5])
    twice = once | {key: torch.cat([once[key]] * 2) for key in ("log_probs", "log_probs_length")}
    loss = CTCLoss(consistency=0.2)(twice)
    assert loss.parts["consistency"] == 0
    torch.testing.assert_close(loss.total, CTCLoss()(once).total)


@settings(deadline=None, max_examples=30)
@given(batches(), st.integers(0, 99))
def test_infeasible_utterances_are_in_no_part_of_a_mixed_loss(batch, seed):
    frames, lengths = batch["log_probs_length"].tolist(), batch["text_encoded_length"].tolist()
    texts = [t[:n].tolist() for t, n in zip(batch["text_encoded"], lengths, strict=True)]
    batch = make_views(texts, frames, seed=seed)
    loss = CTCLoss(**WEIGHTS)(batch)
    loss.total.backward()
    assert loss.infeasible == CTCLoss()(batch).infeasible
    gradient = batch["logits"].grad.unflatten(1, (2, -1))
    assert torch.isfinite(gradient).all()
    assert not gradient[:, :, loss.infeasible].any()


@settings(deadline=None, max_examples=30)
@given(batches(min_size=2), st.integers(0, 99))
def test_a_mixed_loss_is_the_sum_of_single_utterances_and_padding_has_no_part(batch, seed):
    frames, lengths = batch["log_probs_length"].tolist(), batch["text_encoded_length"].tolist()
    texts = [t[:n].tolist() for t, n in zip(batch["text_encoded"], lengths, strict=True)]
    batch = make_views(texts, frames, seed=seed)
    whole, total, count = CTCLoss(**WEIGHTS)(batch), 0.0, 0
    for i, length in enumerate(frames):
        rows = [i, i + len(frames)]
        loss = CTCLoss(**WEIGHTS)(
            {
                "text_encoded": batch["text_encoded"][i : i + 1, : lengths[i]],
                "text_encoded_length": batch["text_encoded_length"][i : i + 1],
                "log_probs": batch["log_probs"][rows, :length],
                "log_probs_length": batch["log_probs_length"][rows],
                "intermediate_log_probs": [
                    x[rows, :length] for x in batch["intermediate_log_probs"]
                ],
            }
        )
        total, count = total + loss.total, count + loss.count
    torch.testing.assert_close(whole.total, total, atol=1e-4, rtol=1e-4)
    assert whole.count == count


def test_evaluation_has_one_view_and_no_consistency():
    batch = make_views([[1, 2]], frames=[6], views=1)
    loss = CTCLoss(**WEIGHTS)(batch)
    assert set(loss.parts) == {"ctc", "intermediate"}
    assert torch.equal(loss.total, CTCLoss(intermediate=0.3)(batch).total)


def test_a_model_without_inner_outputs_is_an_error_that_names_the_option():
    with pytest.raises(ValueError, match=r"model\.intermediate_layers"):
        CTCLoss(intermediate=0.3)(make_batch([[1]], frames=[3]))


@pytest.mark.parametrize("weights", [{"intermediate": 1.0}, {"consistency": -0.1}])
def test_a_weight_that_makes_no_sense_is_refused(weights):
    with pytest.raises(ValueError, match=next(iter(weights))):
        CTCLoss(**weights)
