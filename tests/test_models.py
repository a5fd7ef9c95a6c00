"""What every acoustic model promises, with every kind of label.

A new model configuration is a line in ``MODELS``, which is what one would write after ``train.py``.
Properties that labels have a part in are tested with each text encoder, the others once a model.
"""

from functools import cache

import pytest
import torch

from asrlib import checkpoint
from asrlib.build import build_encoder, build_features
from asrlib.configs import compose
from asrlib.decoding import GreedyDecoder
from asrlib.decoding.attention import AttentionDecoder
from asrlib.decoding.contract import decode
from asrlib.model import MLP, AcousticModel, CTCLoss, DeepSpeech2, JointLoss, LogMel, acoustic
from asrlib.model.conformer import ConvolutionModule
from asrlib.model.features import HOP
from asrlib.model.table import CONFIGS
from asrlib.randomness import torch_seed
from asrlib.text import BLANK, CTCTextEncoder
from tests.corpus import made_by_hand, say
from tests.signals import hiss

N_MELS = 40
MODELS = {
    "mlp": "model=mlp model.width=64",
    "mlp-stride-3": "model=mlp model.width=64 model.layers=1 model.context=4 model.stride=3",
    "ds2-gru-2": "model=deepspeech2 model.size=xxs model.cell=gru model.time_stride=2",
    "ds2-gru-4": "model=deepspeech2 model.size=xxs model.cell=gru model.time_stride=4",
    "ds2-lstm-2": "model=deepspeech2 model.size=xxs model.cell=lstm model.time_stride=2",
    "ds2-lstm-4": "model=deepspeech2 model.size=xxs model.cell=lstm model.time_stride=4",
    "ds2-upsampled": "model=deepspeech2 model.size=xxs model.time_stride=4 model.upsample=2",
    "jasper": "model=jasper model.size=xs model.dense=false",
    "jasper-dense": "model=jasper model.size=xs",
    "quartznet": "model=quartznet model.size=xs",
    "conformer": "model=conformer model.size=xxs",
    "conformer-8": "model=conformer model.size=xxs model.subsampling=8",
    "conformer-inter": "model=conformer model.size=xxs model.intermediate_layers=[1]",
    "conformer-depth": "model=conformer model.size=xxs model.stochastic_depth=0.1",
    "conformer-phones": "model=conformer model.size=xxs model.phone_layer=1",
    "pyramid": "model=pyramid model.size=xxs model.halvings=2",
    "pyramid-8": "model=pyramid model.size=xxs",
    "las": "model=las model.size=xxs",
    "las-pyramid": "model=las model@model.listener=pyramid model.size=xxs model.listener.halvings=2",
}
LABELS = {"char": CTCTextEncoder(), "bpe": made_by_hand()}
REFUSED = [("conformer-8", "char"), ("pyramid-8", "char")]  # frames of 80 ms are too long for them
CASES = [(name, kind) for name in MODELS for kind in LABELS if (name, kind) not in REFUSED]
SAMPLES = [5_000, 16_000, 330, 9_999]  # of the clips in a batch
TEXTS = ["the", "ring the thing", "t", "then a ting"]  # of theirs; short enough for frames of 80 ms


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return make(name)


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    """(name of a model, kind of labels)"""
    return request.param


@cache
def config_of(name):
    return compose("train", f"features.n_mels={N_MELS}", *MODELS[name].split())


def make(name, kind="bpe"):
    """The model as a training builds it; any can have pieces of words as labels."""
    torch.manual_seed(torch_seed("test", name))
    features = build_features(config_of(name))
    return AcousticModel(features, build_encoder(config_of(name), features, LABELS[kind])).eval()


def clips():
    return [torch.from_numpy(hiss(n / 16_000, seed=n)) for n in SAMPLES]


def batch_of(waveforms, texts, kind="bpe"):
    pad = torch.nn.utils.rnn.pad_sequence
    labels = [torch.tensor(LABELS[kind].encode(text)) for text in texts]
    return {
        "audio": pad(waveforms, batch_first=True),
        "audio_length": torch.tensor([len(w) for w in waveforms]),
        "text_encoded": pad(labels, batch_first=True),
        "text_encoded_length": torch.tensor([len(x) for x in labels]),
    }


def run(model, batch):
    return batch | model(batch["audio"], batch["audio_length"], labels=batch)


def criterion(model):
    """A loss that trains all of ``model``."""
    return CTCLoss() if model.speller is None else JointLoss(attention=0.5, label_smoothing=0.0)


def names_of(group):
    return {path.stem for path in CONFIGS.parent.glob(f"{group}/*.yaml")}


def test_every_configuration_of_models_and_labels_has_its_place_here():
    chosen = {overrides.split()[0].removeprefix("model=") for overrides in MODELS.values()}
    assert chosen == names_of("model")
    assert set(LABELS) == names_of("text_encoder")
    for choice, labels in LABELS.items():
        assert compose("train", f"text_encoder={choice}").text_encoder.kind == labels.kind


def test_padding_does_not_change_an_output(case, monkeypatch):
    model, kind = make(*case), case[1]
    together = run(model, batch_of(clips(), TEXTS, kind))
    assert together["log_probs"].shape[2] == len(LABELS[kind])
    losses = []
    monkeypatch.setattr(acoustic, "FRAMES", 1)  # alone, there is no padding at all
    for i, (clip, text) in enumerate(zip(clips(), TEXTS, strict=True)):
        alone = run(model, batch_of([clip], [text], kind))
        length = int(alone["log_probs_length"])
        assert int(together["log_probs_length"][i]) == length == alone["log_probs"].shape[1]
        torch.testing.assert_close(
            together["log_probs"][i, :length], alone["log_probs"][0], atol=1e-4, rtol=0
        )
        losses.append(criterion(model)(alone))
    loss = criterion(model)(together)
    assert loss.infeasible == []
    assert loss.count == sum(x.count for x in losses) == sum(together["text_encoded_length"])
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
        model = make(name)
        for batch in batches:
            criterion(model)(run(model, batch)).total.backward()
        return {key: p.grad for key, p in model.named_parameters()}

    together = gradients([batch_of(clips(), TEXTS)])
    alone = gradients([batch_of([c], [t]) for c, t in zip(clips(), TEXTS, strict=True)])
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
def test_evaluated_in_bfloat16_it_says_nearly_the_same_in_float32(model):
    batch = batch_of(clips(), TEXTS)
    names = ["log_probs", "encoded"] if model.speller else ["log_probs"]
    before = run(model, batch)
    model.evaluates_in = torch.bfloat16
    after = run(model, batch)
    assert not torch.equal(after["log_probs"], before["log_probs"]), "computed in float32"
    for row, length in enumerate(before["log_probs_length"].tolist()):
        assert after["log_probs_length"][row] == length
        for name in names:
            said, was = after[name][row, :length], before[name][row, :length]
            assert said.dtype == torch.float32
            torch.testing.assert_close(said, was, atol=0.05 * float(was.abs().max()), rtol=0)


def test_a_training_computes_in_its_own_precision_whatever_evaluation_does(model):
    def said():
        torch.manual_seed(0)  # of dropout
        return run(model.train(), batch_of(clips(), TEXTS))["log_probs"]

    before = said()
    model.evaluates_in = torch.bfloat16
    assert torch.equal(said(), before)


@torch.no_grad()
def test_the_output_length_is_foretold(model):
    lengths = torch.arange(1, 201)
    foretold = model.encoder.output_length(lengths)
    for length, expected in zip(lengths.tolist(), foretold.tolist(), strict=True):
        out = model.encoder(torch.zeros(1, N_MELS, length), torch.tensor([length]))
        assert out["log_probs"].shape[:2] == (1, expected)
        assert out["log_probs"].isfinite().all()
        assert out["log_probs_length"].tolist() == [expected]
        assert expected >= 1


def test_the_output_length_of_samples_is_foretold(model, monkeypatch):
    monkeypatch.setattr(acoustic, "FRAMES", 1)
    batch = run(model, batch_of(clips(), TEXTS))
    foretold = model.output_length(batch["audio_length"])
    assert torch.equal(foretold, batch["log_probs_length"])
    assert int(foretold.max()) == batch["log_probs"].shape[1]


def test_an_encoder_sees_few_shapes():
    """oneDNN compiles kernels for each, and cuDNN plans."""
    model = make("jasper")
    shapes = set()
    model.encoder.register_forward_pre_hook(lambda _, inputs: shapes.add(inputs[0].shape))
    for samples in range(16_000, 20_000, 1_000):
        audio = torch.randn(1, samples)
        output = model(audio, torch.tensor([samples]))
        assert output["spectrogram"].shape[-1] == samples // HOP + 1
    assert shapes == {(1, N_MELS, 128)}


@torch.no_grad()
def test_digital_silence_is_blank_and_what_stands_beside_it_is_as_before(case):
    model = make(*case)
    speech, silence = clips()[-1], torch.zeros(SAMPLES[0])
    together = run(model, batch_of([speech, silence], ["a", "t"], case[1]))
    assert together["log_probs"][1].argmax(dim=1).eq(BLANK).all()
    alone = run(model, batch_of([speech], ["a"], case[1]))["log_probs"]
    torch.testing.assert_close(
        together["log_probs"][:1, : alone.shape[1]], alone, atol=1e-4, rtol=0
    )
    assert alone.exp().max() < 0.99


def test_probabilities_sum_to_one(model):
    log_probs = run(model, batch_of(clips(), TEXTS))["log_probs"]
    assert log_probs.dtype == torch.float32
    sums = log_probs.exp().sum(dim=-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_reaches_every_parameter(case, training):
    model = make(*case).train(training)
    criterion(model)(run(model, batch_of(clips(), TEXTS, case[1]))).total.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.any(), key


@torch.no_grad()
def test_a_saved_model_gives_the_same_bits(case, tmp_path):
    name, kind = case
    model, labels, batch = make(*case), LABELS[kind], batch_of(clips(), TEXTS, kind)
    for parameter in model.parameters():  # other weights than those that it is built with
        parameter.add_(0.01)
    checkpoint.save_checkpoint(tmp_path / "saved", model, config_of(name), labels, state={})
    loaded, found, _ = checkpoint.load_acoustic_model(tmp_path / "saved")
    assert found.to_dict() == labels.to_dict()
    outputs = [run(m, batch)["log_probs"] for m in (model, loaded, make(*case))]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@torch.no_grad()
def test_evaluation_is_repeatable(model):
    batch = batch_of(clips(), TEXTS)
    assert torch.equal(run(model, batch)["log_probs"], run(model, batch)["log_probs"])


def test_bfloat16_comes_near_and_has_a_gradient_and_log_probs_stay_float32(case):
    model, batch = make(*case), batch_of(clips(), TEXTS, case[1])
    with torch.no_grad():
        exact = run(model, batch)["log_probs"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = run(model, batch)
        total = criterion(model)(out).total
    total.backward()
    assert out["log_probs"].dtype == torch.float32
    assert not torch.equal(out["log_probs"], exact), "computed in the same format"
    assert (out["log_probs"].exp() - exact.exp()).abs().max() < 0.05
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_where_bfloat16_is_slow_on_a_cpu_it_is_not_used():
    model, found = DeepSpeech2(N_MELS, 29, size="xxs", cell="lstm"), []
    for layer in model.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.LSTM)):
            layer.register_forward_hook(lambda layer, _, output: found.append((layer, output)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(2, N_MELS, 60), torch.tensor([60, 40]))
    first, second, *recurrent = found
    assert (first[0].in_channels, first[1].dtype) == (1, torch.float32)
    assert second[1].dtype == torch.bfloat16
    assert {output[0].dtype for _, output in recurrent} == {torch.float32}


def test_where_onednn_never_ends_in_bfloat16_it_is_not_used():
    module, found = ConvolutionModule(48, kernel=7, dropout=0.0), []
    module.depthwise.register_forward_hook(lambda *call: found.append(call[-1].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(torch.randn(2, 20, 48), None)
    assert found == [torch.float32]


def test_the_spectrogram_can_be_changed_on_its_way(model):
    batch = batch_of(clips(), TEXTS)
    seen = {}

    def augment(spectrogram, lengths):
        seen["lengths"] = lengths
        return torch.zeros_like(spectrogram)

    out = model(batch["audio"], batch["audio_length"], augment)
    assert not out["spectrogram"].any()
    assert torch.equal(seen["lengths"], out["spectrogram_length"])


# of each model configuration one, with either kind of labels; the others are slow
QUICK = [
    ("mlp", "char"),
    ("ds2-gru-4", "bpe"),
    ("jasper", "char"),
    ("quartznet", "bpe"),
    ("conformer", "char"),
    ("conformer-8", "bpe"),
    ("pyramid", "char"),
    ("pyramid-8", "bpe"),
    ("las", "char"),
    ("las-pyramid", "bpe"),
]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if case in QUICK else pytest.mark.slow, id="-".join(case))
        for case in CASES
    ],
)
def test_a_batch_can_be_learned_by_heart(case):
    """From sound to text and back: near no loss, and greedy decoding reads the targets."""
    model, labels = make(*case), LABELS[case[1]]
    texts = ["the king", "then a ring", "hinge"]
    batch = batch_of([torch.from_numpy(say(text)) for text in texts], texts, case[1])
    decoder = GreedyDecoder(labels)
    if model.speller is not None:
        decoder = AttentionDecoder(labels, model.speller, beam_width=1, ctc_weight=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    torch.manual_seed(torch_seed("test", *case, "by heart"))
    loss, read = float("inf"), []
    for step in range(1, 401):
        model.train()
        sum_ = criterion(model)(run(model, batch))
        (sum_.total / sum_.count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            with torch.no_grad():
                out = run(model.eval(), batch)
            sum_ = criterion(model)(out)
            loss = float(sum_.total) / sum_.count
            read = [hypothesis.text for hypothesis in decode(decoder, out)]
            if loss < 0.05 and read == texts:
                return
    pytest.fail(f"after {step} steps: {loss:.3f} nats per label, {read}")


def test_parameters_are_counted():
    model = AcousticModel(LogMel(), MLP(80, 29, width=10, layers=1, context=0))
    assert model.parameter_count() == (80 * 10 + 10) + (10 * 29 + 29)


@pytest.mark.parametrize(
    "wrong", [{"size": "xxl"}, {"cell": "rnn"}, {"time_stride": 3}, {"upsample": 3}]
)
def test_a_model_that_does_not_exist_is_an_error_that_names_it(wrong):
    with pytest.raises(ValueError, match=repr(next(iter(wrong.values())))):
        DeepSpeech2(N_MELS, 29, **wrong)
