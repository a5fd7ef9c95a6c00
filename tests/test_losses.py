"""CTC losses are sums over labels; what has no path is named, not hidden."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from asrlib.model import MLP, CTCLoss, ctc_feasible

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
