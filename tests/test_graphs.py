"""Recorded graphs, but for the recording itself, which takes a GPU (``bench.gpu_check`` has that)."""

import pytest
import torch

from asrlib.model import Conformer
from asrlib.training import graphs
from asrlib.training.graphs import FRAMES, ROWS, RecordedForward, record_encoder
from asrlib.training.state import TrainerOptions

F, V = 20, 7


def conformer(**options):
    torch.manual_seed(0)
    return Conformer(F, V, size="xxs", dropout=0.0, intermediate_layers=[1], **options)


def unrecorded(module, arguments, num_warmup_iters, pool):
    assert not torch.is_autocast_cache_enabled()
    return module


def batch(*lengths):
    torch.manual_seed(1)
    return torch.randn(len(lengths), F, max(lengths)), torch.tensor(lengths)


def loss(out):
    real = torch.arange(out["log_probs"].shape[1]) < out["log_probs_length"].unsqueeze(1)
    both = out["log_probs"], *out["intermediate_log_probs"]
    return sum(x[real].square().mean() for x in both)


def test_rows_and_frames_that_are_added_change_no_output_and_no_gradient():
    encoder, plain = conformer(), conformer()
    encoder.forward = RecordedForward(encoder, unrecorded)
    for lengths in ((50, 31, 40), (200,), (FRAMES,) * ROWS):
        found, expected = encoder(*batch(*lengths)), plain(*batch(*lengths))
        assert torch.equal(found["log_probs_length"], expected["log_probs_length"])
        assert found.keys() == expected.keys()
        assert len(found["log_probs"]) == len(lengths)
        losses = loss(found), loss(expected)
        torch.testing.assert_close(*losses)
        gradients = (
            torch.autograd.grad(value, model.parameters())
            for value, model in zip(losses, (encoder, plain), strict=True)
        )
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_shape_is_recorded_once_and_shapes_are_few():
    encoder = conformer()
    encoder.forward = forward = RecordedForward(encoder, unrecorded)
    for longest in range(FRAMES - 20, FRAMES + 1, 5):
        for rows in range(1, ROWS + 1):
            encoder(*batch(*[longest] * rows))
    assert list(forward.recorded) == [(ROWS, FRAMES)]
    encoder(*batch(FRAMES + 1))
    assert list(forward.recorded) == [(ROWS, FRAMES), (ROWS, 2 * FRAMES)]


def test_evaluation_is_not_recorded():
    encoder = conformer()
    encoder.forward = forward = RecordedForward(encoder, unrecorded)
    with torch.no_grad():
        encoder(*batch(50))
    encoder.eval()
    encoder(*batch(50))
    assert not forward.recorded


def test_parameters_keep_their_names_and_the_listener_of_a_speller_is_recorded():
    class Joint(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.listener = conformer()

    model = Joint()
    names = list(model.state_dict())
    assert record_encoder(model, torch.device("cuda"), accumulate=1)
    assert isinstance(model.listener.forward, RecordedForward)
    assert list(model.state_dict()) == names


def test_what_cannot_be_recorded_is_refused_by_name(capsys):
    with pytest.raises(
        ValueError, match=r"trainer\.graphs=true records conformer alone, not Linear"
    ):
        record_encoder(torch.nn.Linear(1, 1), torch.device("cuda"), accumulate=1)
    with pytest.raises(ValueError, match=r"trainer\.accumulate=1"):
        record_encoder(conformer(), torch.device("cuda"), accumulate=2)
    with pytest.raises(ValueError, match="choose one"):
        TrainerOptions(epochs=1, compile=True, graphs=True)
    assert not record_encoder(conformer(), torch.device("cpu"), accumulate=1)
    assert "no effect on cpu" in capsys.readouterr().out


def test_a_recording_has_its_own_copies_of_what_is_padded():
    """The next batch of the same shape is copied into them."""
    kept = []

    def record(module, arguments, num_warmup_iters, pool):
        assert num_warmup_iters == graphs.WARM_UP
        kept.extend(arguments)
        return module

    encoder = conformer()
    encoder.forward = RecordedForward(encoder, record)
    spectrogram, lengths = batch(*[FRAMES] * ROWS)
    encoder(spectrogram, lengths)
    assert kept[0].data_ptr() != spectrogram.data_ptr()
    assert graphs.WARM_UP > 0
