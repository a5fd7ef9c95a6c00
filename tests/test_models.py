"""What every acoustic model promises. A new model is one more line in ``MODELS``."""

import pytest
import torch
from safetensors.torch import load, save

from asrlib.model import (
    MLP,
    AcousticModel,
    Conformer,
    CTCLoss,
    DeepSpeech2,
    Jasper,
    LogMel,
    QuartzNet,
)
from asrlib.randomness import torch_seed
from tests.signals import hiss

N_MELS, V = 40, 29
MODELS = {
    "mlp": lambda: MLP(N_MELS, V, width=64),
    "mlp-stride-3": lambda: MLP(N_MELS, V, width=64, layers=1, context=4, stride=3),
    "ds2-gru-2": lambda: DeepSpeech2(N_MELS, V, "xxs", "gru", time_stride=2),
    "ds2-gru-4": lambda: DeepSpeech2(N_MELS, V, "xxs", "gru", time_stride=4),
    "ds2-lstm-2": lambda: DeepSpeech2(N_MELS, V, "xxs", "lstm", time_stride=2),
    "ds2-lstm-4": lambda: DeepSpeech2(N_MELS, V, "xxs", "lstm", time_stride=4),
    "ds2-upsampled": lambda: DeepSpeech2(N_MELS, V, "xxs", "lstm", time_stride=4, upsample=2),
    "jasper": lambda: Jasper(N_MELS, V, "xs", dense=False),
    "jasper-dense": lambda: Jasper(N_MELS, V, "xs"),
    "quartznet": lambda: QuartzNet(N_MELS, V, "xs"),
    "conformer": lambda: Conformer(N_MELS, V, "xxs"),
    "conformer-inter": lambda: Conformer(N_MELS, V, "xxs", intermediate_layers=[1]),
    "conformer-depth": lambda: Conformer(N_MELS, V, "xxs", stochastic_depth=0.1),
}
SAMPLES = [5_000, 16_000, 330, 9_999]  # of the clips in a batch


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    torch.manual_seed(torch_seed("test", name))
    return AcousticModel(LogMel(N_MELS), MODELS[name]()).eval()


def clips():
    return [torch.from_numpy(hiss(n / 16_000, seed=n)) for n in SAMPLES]


def labels(count, seed=0):
    return torch.randint(1, V, (count,), generator=torch.Generator().manual_seed(seed))


def batch_of(waveforms, texts):
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "audio": pad(waveforms, batch_first=True),
        "audio_length": torch.tensor([len(w) for w in waveforms]),
        "text_encoded": pad(texts, batch_first=True),
        "text_encoded_length": torch.tensor([len(t) for t in texts]),
    }


def run(model, batch):
    return batch | model(batch["audio"], batch["audio_length"])


def test_padding_does_not_change_an_output(model):
    texts = [labels(n) for n in (5, 8, 1, 7)]
    together = run(model, batch_of(clips(), texts))
    losses = []
    for i, (clip, text) in enumerate(zip(clips(), texts, strict=True)):
        alone = run(model, batch_of([clip], [text]))
        length = int(alone["log_probs_length"])
        assert int(together["log_probs_length"][i]) == length == alone["log_probs"].shape[1]
        torch.testing.assert_close(
            together["log_probs"][i, :length], alone["log_probs"][0], atol=1e-4, rtol=0
        )
        losses.append(CTCLoss()(alone))
    loss = CTCLoss()(together)
    assert loss.infeasible == []
    assert loss.count == sum(x.count for x in losses) == 21
    torch.testing.assert_close(loss.total, sum(x.total for x in losses), atol=0, rtol=1e-4)


def test_what_padding_holds_does_not_reach_an_output(model):
    spectrogram = torch.randn(2, N_MELS, 120)
    lengths = torch.tensor([57, 120])
    clean = model.encoder(spectrogram, lengths)
    spectrogram[0, :, 57:] = 100.0
    dirty = model.encoder(spectrogram, lengths)
    length = int(clean["log_probs_length"][0])
    torch.testing.assert_close(
        dirty["log_probs"][0, :length], clean["log_probs"][0, :length], atol=1e-4, rtol=0
    )


def test_padding_does_not_change_a_gradient(name):
    def gradients(batches):
        torch.manual_seed(torch_seed("test", name))
        model = AcousticModel(LogMel(N_MELS), MODELS[name]()).eval()
        for batch in batches:
            CTCLoss()(run(model, batch)).total.backward()
        return {key: p.grad for key, p in model.named_parameters()}

    texts = [labels(n) for n in (5, 8, 1, 7)]
    together = gradients([batch_of(clips(), texts)])
    alone = gradients([batch_of([c], [t]) for c, t in zip(clips(), texts, strict=True)])
    for key, gradient in together.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(alone[key], gradient, atol=1e-3 * scale, rtol=0)


def test_every_frame_depends_on_the_utterance(model):
    """So that the tests of padding cannot pass by a model that looks at nothing."""
    one, other = torch.randn(1, N_MELS, 100), torch.randn(1, N_MELS, 100)
    length = torch.tensor([100])
    out = [model.encoder(x, length)["log_probs"][0] for x in (one, other)]
    assert (out[0] - out[1]).abs().amax(dim=1).min() > 1e-3


@torch.no_grad()
def test_the_output_length_is_foretold(model):
    lengths = torch.arange(1, 201)
    foretold = model.encoder.output_length(lengths)
    for length, expected in zip(lengths.tolist(), foretold.tolist(), strict=True):
        out = model.encoder(torch.zeros(1, N_MELS, length), torch.tensor([length]))
        assert out["log_probs"].shape == (1, expected, V)
        assert out["log_probs_length"].tolist() == [expected]
        assert expected >= 1


def test_the_output_length_of_samples_is_foretold(model):
    batch = run(model, batch_of(clips(), [labels(1)] * 4))
    foretold = model.output_length(batch["audio_length"])
    assert torch.equal(foretold, batch["log_probs_length"])
    assert int(foretold.max()) == batch["log_probs"].shape[1]


def test_probabilities_sum_to_one(model):
    log_probs = run(model, batch_of(clips(), [labels(1)] * 4))["log_probs"]
    assert log_probs.dtype == torch.float32
    sums = log_probs.exp().sum(dim=-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_reaches_every_parameter(model, training):
    model.train(training)
    CTCLoss()(run(model, batch_of(clips(), [labels(n) for n in (5, 8, 1, 7)]))).total.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.any(), key


@torch.no_grad()
def test_saved_weights_give_the_same_bits(name, model):
    batch = batch_of(clips(), [labels(1)] * 4)
    other = AcousticModel(LogMel(N_MELS), MODELS[name]()).eval()
    assert not torch.equal(run(other, batch)["log_probs"], run(model, batch)["log_probs"])
    other.load_state_dict(load(save(model.state_dict())))
    assert torch.equal(run(other, batch)["log_probs"], run(model, batch)["log_probs"])


@torch.no_grad()
def test_evaluation_is_repeatable(model):
    batch = batch_of(clips(), [labels(1)] * 4)
    assert torch.equal(run(model, batch)["log_probs"], run(model, batch)["log_probs"])


@torch.no_grad()
def test_bfloat16_comes_near_and_log_probs_stay_float32(model):
    batch = batch_of(clips(), [labels(1)] * 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = run(model, batch)["log_probs"]
    assert mixed.dtype == torch.float32
    assert (mixed.exp() - run(model, batch)["log_probs"].exp()).abs().max() < 0.05


def test_a_gradient_flows_in_bfloat16(model):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = run(model, batch_of(clips(), [labels(n) for n in (5, 8, 1, 7)]))
        total = CTCLoss()(out).total
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_spectrogram_can_be_changed_on_its_way(model):
    batch = batch_of(clips(), [labels(1)] * 4)
    seen = {}

    def augment(spectrogram, lengths):
        seen["lengths"] = lengths
        return torch.zeros_like(spectrogram)

    out = model(batch["audio"], batch["audio_length"], augment)
    assert not out["spectrogram"].any()
    assert torch.equal(seen["lengths"], out["spectrogram_length"])


def test_parameters_are_counted():
    model = AcousticModel(LogMel(), MLP(80, 29, width=10, layers=1, context=0))
    assert model.parameter_count() == (80 * 10 + 10) + (10 * 29 + 29)


@pytest.mark.parametrize(
    "wrong", [{"size": "xxl"}, {"cell": "rnn"}, {"time_stride": 3}, {"upsample": 3}]
)
def test_a_model_that_does_not_exist_is_an_error_that_names_it(wrong):
    with pytest.raises(ValueError, match=repr(next(iter(wrong.values())))):
        DeepSpeech2(N_MELS, V, **wrong)
