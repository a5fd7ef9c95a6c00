"""Listen, Attend and Spell: what attention looks at, what the loss sums, and the way from train to text."""

import json
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from asrlib import Recognizer, checkpoint
from asrlib.build import build_decoder, build_encoder, build_features
from asrlib.configs import compose
from asrlib.data import SAMPLE_RATE
from asrlib.decoding.tune import tune
from asrlib.metrics.attention import coverage, monotonicity
from asrlib.model import LAS, MLP, CTCLoss, JointLoss, PyramidalLSTM
from asrlib.model.alignment import ctc_frames, guidance_sum
from asrlib.model.las import EOS, SIZES, Memory, Speller
from asrlib.model.masking import length_mask
from asrlib.model.pyramid import pairs_of_frames
from asrlib.model.unrolled import unroll
from asrlib.text import CTCTextEncoder
from asrlib.training import Inferencer, build_trainer, train
from tests.corpus import say, tiny_overrides
from tests.signals import hiss
from tests.test_attention_decoding import ARPA

N_MELS, V = 20, 7
TEXT = torch.tensor([[1, 2, 2, 6], [3, 9, 9, 9], [5, 4, 9, 9]]).clamp(max=V - 1)
LENGTHS = torch.tensor([4, 1, 2])
FRAMES = torch.tensor([40, 23, 9])


def new_model(**options):
    torch.manual_seed(0)
    listener = partial(MLP, width=16, layers=1, context=2)
    return LAS(N_MELS, V, listener, "xxs", **options).eval()


def new_batch():
    spectrogram = torch.randn(3, N_MELS, 40, generator=torch.Generator().manual_seed(1))
    return {
        "spectrogram": spectrogram,
        "text_encoded": TEXT,
        "text_encoded_length": LENGTHS,
    }


def run(model, batch, rows=slice(None)):
    frames, steps = int(FRAMES[rows].max()), int(LENGTHS[rows].max())
    batch = {key: value[rows] for key, value in batch.items()}
    batch["text_encoded"] = batch["text_encoded"][:, :steps]
    return batch | model(batch["spectrogram"][..., :frames], FRAMES[rows], batch["text_encoded"])


# --- attention


def test_attention_sums_to_one_over_real_frames_and_is_zero_on_padding():
    out = run(new_model(), new_batch())
    assert out["attention"].shape == (3, 5, 20)
    assert out["attention_logits"].shape == (3, 5, V)
    for row, frames in zip(out["attention"], out["log_probs_length"].tolist(), strict=True):
        assert not row[:, frames:].any()
        torch.testing.assert_close(row[:, :frames].sum(-1), torch.ones(5))
        assert (row[:, :frames] > 0).all()


def test_padding_does_not_change_where_attention_looks_nor_what_it_spells():
    together = run(new_model(), new_batch())
    for i in range(3):
        alone = run(new_model(), new_batch(), slice(i, i + 1))
        steps, frames = alone["attention"].shape[1:]
        for name, size in (("attention", frames), ("attention_logits", V)):
            found = together[name][i, :steps, :size]
            torch.testing.assert_close(found, alone[name][0], atol=1e-5, rtol=0)


def test_attention_knows_where_it_looked_before():
    """Two frames that sound alike are told apart by the past alone."""
    torch.manual_seed(0)
    speller = Speller(4, V, SIZES["xxs"], 0.0, 0.0)
    memory = speller.remember(torch.ones(1, 9, 4), torch.tensor([9]))
    label, state = torch.tensor([[EOS]]), speller.start(memory)
    _, state = speller.step(label, memory, state)
    torch.testing.assert_close(state.attention[0, 0, 0], torch.full((9,), 1 / 9))
    moved = state._replace(attention=F.one_hot(torch.tensor(3), 9).float().expand(1, 1, 2, 9))
    _, after = speller.step(label, memory, moved)
    assert after.attention[0, 0, 0].std() > 1e-4
    torch.testing.assert_close(
        after.attention[0, 0, 1], moved.attention[0, 0, 1] + after.attention[0, 0, 0]
    )


def test_the_loss_with_known_labels_is_that_of_a_loop_from_label_to_label():
    model, batch = new_model(), new_batch()
    out = run(model, batch)
    expected = 0.0
    for i in range(3):
        frames = out["log_probs_length"][i : i + 1]
        memory = model.speller.remember(out["encoded"][i : i + 1], frames)
        state, before = model.speller.start(memory), EOS
        for label in [*TEXT[i, : LENGTHS[i]].tolist(), EOS]:
            logits, state = model.speller.step(torch.tensor([[before]]), memory, state)
            expected -= logits[0, 0].log_softmax(-1)[label]
            before = label
    loss = JointLoss(attention=1.0, label_smoothing=0.0)(out)
    torch.testing.assert_close(loss.total, expected)
    assert (loss.count, loss.infeasible) == (7, [])


@pytest.mark.parametrize("size", ["xxs", "s"])  # one layer, and two
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_all_steps_are_those_of_autograd_through_a_loop(size, dropout):
    torch.manual_seed(0)
    speller = Speller(12, V, SIZES[size], dropout, sampling=0.0).double()
    encoded = torch.randn(3, 20, 12, dtype=torch.double, requires_grad=True)
    mask = length_mask(torch.tensor([20, 13, 5]), 20, "cpu")
    before = F.pad(TEXT, (1, 0), value=EOS)
    shape = *before.shape, len(speller.cells), SIZES[size].width
    factors = speller.dropout(torch.ones(shape, dtype=torch.double)) if dropout else None
    gradients = []
    for unrolled in (True, False):
        memory = Memory(encoded, speller.key(encoded), mask)
        if unrolled:
            queries, contexts, attention = unroll(speller, memory, before, factors)
        else:
            states = [speller.start(memory)]
            for step, label in enumerate(before.unsqueeze(2).unbind(1)):
                now = None if factors is None else factors[:, step : step + 1]
                states.append(speller.advance(label, memory, states[-1], now))
            queries = torch.cat([state.query for state in states[1:]], dim=1)
            contexts = torch.cat([state.context for state in states[1:]], dim=1)
            attention = torch.cat([state.attention[:, :, 0] for state in states[1:]], dim=1)
        signs = torch.linspace(-1, 1, queries.numel(), dtype=torch.double).view_as(queries)
        total = (queries * signs).sum() + (contexts**2).sum() + (attention**3).sum()
        gradients.append(
            torch.autograd.grad(total, [encoded, *speller.parameters()], allow_unused=True)
        )
    names = ["encoded", *(name for name, _ in speller.named_parameters())]
    for name, found, expected in zip(names, *gradients, strict=True):
        assert (found is None) == (expected is None) == name.startswith(("out.", "head.")), name
        if found is not None:
            torch.testing.assert_close(found, expected, msg=lambda text, name=name: name + text)


def test_several_texts_of_an_utterance_are_spelled_as_each_alone():
    """The beam's axis N."""
    speller = new_model().speller
    memory = speller.remember(torch.randn(2, 8, 16), torch.tensor([8, 5]))
    labels = torch.tensor([[[1, 2], [3, 4]], [[5, 5], [6, 1]]])  # [step, B, N]
    together = speller.start(memory, 2)
    for label in labels:
        logits, together = speller.step(label, memory, together)
    for n in range(2):
        alone = speller.start(memory)
        for label in labels:
            expected, alone = speller.step(label[:, n : n + 1], memory, alone)
        torch.testing.assert_close(logits[:, n : n + 1], expected)


# --- scheduled sampling


def test_sampled_labels_come_from_torchs_generator_and_in_training_alone():
    model, batch = new_model(dropout=0.0, sampling=0.5), new_batch()

    def logits(seed, training=True):
        torch.manual_seed(seed)
        return run(model.train(training), batch)["attention_logits"]

    true = logits(0, training=False)
    assert torch.equal(true, logits(1, training=False))
    assert torch.equal(logits(1), logits(1))
    found = torch.stack([logits(seed) for seed in range(8)])
    assert torch.equal(found[:, :, 0], true[None, :, 0].expand(8, -1, -1))  # nothing before it
    assert not torch.equal(found[0], found[1])
    assert 0.2 < float((found[:, :, 1] == true[None, :, 1]).all(-1).float().mean()) < 0.9
    never = new_model(dropout=0.0, sampling=0.0)
    assert torch.equal(run(never.train(), batch)["attention_logits"], true)


# --- the loss


def test_joint_is_the_weighted_sum_and_smoothing_spreads_a_share_over_all_labels():
    out = run(new_model(), new_batch())
    loss = JointLoss(attention=0.7, label_smoothing=0.1)(out)
    log_probs, spelled = out["attention_logits"].log_softmax(-1), 0.0
    for i, length in enumerate(LENGTHS.tolist()):
        for step, label in enumerate([*TEXT[i, :length].tolist(), EOS]):
            spelled -= 0.9 * log_probs[i, step, label] + 0.1 * log_probs[i, step].mean()
    ctc = CTCLoss()(out).total
    torch.testing.assert_close(loss.total, 0.3 * ctc + 0.7 * spelled)
    torch.testing.assert_close(loss.parts, {"attention": spelled.detach(), "ctc": ctc.detach()})


def test_two_views_count_as_their_mean():
    out = run(new_model(), new_batch())
    names = ("log_probs", "log_probs_length", "attention_logits")
    twice = out | {name: torch.cat([out[name]] * 2) for name in names}
    for options in ({}, {"consistency": 0.2}):
        loss = JointLoss(**options)(twice)
        torch.testing.assert_close(loss.total, JointLoss()(out).total)
        assert loss.count == 7


def test_what_has_no_ctc_path_is_spelled_all_the_same():
    out = run(new_model(), new_batch())
    out["log_probs_length"] = torch.tensor([3, 12, 5])  # too few for the first, which has a repeat
    joint, alone = JointLoss(attention=0.5)(out), JointLoss(attention=1.0)(out)
    assert (joint.infeasible, joint.count) == ([0], 7)
    assert (alone.infeasible, alone.count) == ([], 7)
    assert JointLoss().count(out, out["log_probs_length"]) == 7
    torch.testing.assert_close(joint.parts["attention"], alone.total.detach())
    torch.testing.assert_close(joint.parts["ctc"], CTCLoss()(out).total.detach())


def test_a_loss_that_cannot_be_is_an_error_that_names_the_way_out():
    with pytest.raises(ValueError, match=r"model=las, or loss=ctc"):
        JointLoss()({"log_probs": None})
    for wrong in ({"attention": 0.0}, {"label_smoothing": 1.0}, {"guidance": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            JointLoss(**wrong)
    with pytest.raises(ValueError, match="no weight for CTC"):
        JointLoss(attention=1.0, consistency=0.2)


# --- guidance


def spikes(frames, labels):
    """log_probs [12, 9] that have ``labels`` (frame → label) and blanks elsewhere, in ``frames`` frames."""
    probabilities = torch.full((12, 9), 0.01)
    for frame in range(frames):
        probabilities[frame, labels.get(frame, 0)] = 0.9
    return probabilities.log()


def test_a_label_s_time_on_ctc_s_best_path_is_its_spike():
    log_probs = spikes(12, {2: 5, 3: 5, 6: 7, 9: 7})  # the first is held for two frames
    frames = ctc_frames(log_probs, torch.tensor([5, 7, 7]))
    assert frames.tolist() == [2.5, 6.0, 9.0]


def test_guidance_asks_for_attention_where_ctc_hears_a_label():
    log_probs = torch.stack([spikes(12, {1: 5, 10: 7}), spikes(8, {7: 3})])
    frames, texts = torch.tensor([12, 8]), torch.tensor([[5, 7], [3, 0]])
    there = torch.zeros(2, 3, 12)
    there[0, 0, 1] = there[0, 1, 10] = there[1, 0, 5] = there[:, 2, 0] = 1
    there[1, 1, 11] = 1  # beyond the second text, where nothing is asked
    loss = partial(guidance_sum, log_probs=log_probs, frames=frames, texts=texts)
    lengths = torch.tensor([2, 1])
    assert loss(there, lengths=lengths).item() == pytest.approx(0, abs=1e-3)
    elsewhere = there.roll(5, dims=2).requires_grad_()
    assert loss(elsewhere, lengths=lengths).item() > 3
    loss(elsewhere, lengths=lengths).backward()
    moves = elsewhere.grad[0, 0]
    assert (moves[:5] < 0).all() and not moves[5:].any()  # three frames beside frame 1
    assert loss(there, lengths=torch.tensor([0, 0])).item() == 0


def test_joint_loss_adds_guidance_of_what_has_a_ctc_path():
    out = run(new_model(), new_batch())
    frames = out["log_probs_length"]
    guided = JointLoss(guidance=0.5)(out)
    torch.testing.assert_close(
        guided.total, JointLoss()(out).total + 0.5 * guided.parts["guidance"]
    )
    expected = guidance_sum(out["attention"], out["log_probs"], frames, TEXT, LENGTHS)
    torch.testing.assert_close(guided.parts["guidance"], expected.detach())
    names = ("log_probs", "log_probs_length", "attention_logits", "attention")
    twice = out | {name: torch.cat([out[name]] * 2) for name in names}
    torch.testing.assert_close(JointLoss(guidance=0.5)(twice).total, guided.total)
    out["log_probs_length"] = torch.tensor([3, 12, 5])  # too few for the first, which has a repeat
    left = JointLoss(guidance=0.5)(out)
    rest = slice(1, None)
    expected = guidance_sum(
        out["attention"][rest], out["log_probs"][rest], frames[rest], TEXT[rest], LENGTHS[rest]
    )
    assert left.infeasible == [0]
    torch.testing.assert_close(left.parts["guidance"], expected.detach())


# --- the pyramid


def test_frames_are_read_in_pairs_and_padding_is_none_of_them():
    x = torch.arange(1.0, 11.0).view(2, 5, 1)
    assert pairs_of_frames(x, torch.tensor([5, 3])).tolist() == [
        [[1, 2], [3, 4], [5, 0]],
        [[6, 7], [8, 0], [0, 0]],
    ]


def test_an_eighth_of_the_frames_is_too_few_for_ctc_of_characters_but_not_for_attention():
    def encoder(*overrides):
        config = compose("train", "model.size=xxs", *overrides)
        return build_encoder(config, build_features(config), CTCTextEncoder())

    pyramid = ["model=las", "model@model.listener=pyramid"]
    assert encoder(*pyramid, "loss=attention").stride == 8
    for chosen in (["model=pyramid"], [*pyramid, "loss=joint"]):
        with pytest.raises(ValueError, match=r"frame of 80 ms .*halvings=2"):
            encoder(*chosen)


@pytest.mark.parametrize("wrong", [{"size": "xxl"}, {"halvings": 4}])
def test_a_pyramid_that_does_not_exist_is_an_error(wrong):
    with pytest.raises(ValueError, match=repr(next(iter(wrong.values())))):
        PyramidalLSTM(N_MELS, V, **wrong)


@pytest.mark.parametrize("wrong", [{"size": "xxl"}, {"sampling": 1.0}])
def test_a_las_that_does_not_exist_is_an_error(wrong):
    with pytest.raises(ValueError, match=repr(next(iter(wrong.values())))):
        LAS(N_MELS, V, partial(MLP, width=4), **wrong)


# --- what shows whether attention works


def test_monotonicity_and_coverage_tell_reading_from_staring():
    reading, staring = np.eye(6), np.tile(np.eye(6)[2], (6, 1))
    back_and_forth = np.eye(6)[[0, 3, 1, 4, 2, 5]]
    assert (monotonicity(reading), coverage(reading)) == (1.0, 1.0)
    assert (monotonicity(staring), coverage(staring)) == (1.0, pytest.approx(1 / 6))
    assert (monotonicity(back_and_forth), coverage(back_and_forth)) == (pytest.approx(3 / 5), 1.0)
    assert monotonicity(reading[:1]) == 1.0  # an empty text has one step


# --- training


JOINT = ["model=las", "loss=joint", "decoder=joint", "decoder.beam_width=2"]
ALONE = ["model=las", "loss=attention", "decoder=attention", "decoder.beam_width=1"]
PYRAMID = [*ALONE, "model@model.listener=pyramid", "text_encoder=char"]
VIEWS = [*JOINT, "loss.consistency=0.2", "augmentations=cr_ctc", "trainer.average=0.9"]


def config_of(corpus, run_dir, *overrides):
    return compose("train", *tiny_overrides(corpus, run_dir), *overrides)


@pytest.fixture(scope="module")
def run_dir(corpus, tmp_path_factory):
    """A run of a joint model, hardly trained."""
    folder = tmp_path_factory.mktemp("joint")
    train(config_of(corpus, folder, *JOINT))
    return folder


def rows(folder):
    return [json.loads(line) for line in (folder / "logs/metrics.jsonl").open()]


def without_times(row):
    return {key: value for key, value in row.items() if "second" not in key}


@pytest.mark.parametrize("options", [ALONE, PYRAMID, VIEWS], ids=["alone", "pyramid", "views"])
def test_stopped_after_every_step_it_is_the_run_that_nothing_stopped(corpus, tmp_path, options):
    train(config_of(corpus, tmp_path / "whole", *options))
    sittings = 0
    while not train(
        config_of(corpus, tmp_path / "parts", *options, "trainer.max_hours=1e-9")
    ).finished:
        sittings += 1
    assert sittings >= 4
    for name in ("checkpoints/best", "checkpoints/step-00000004"):
        a, b = (
            load_file(tmp_path / run / name / "model.safetensors") for run in ("whole", "parts")
        )
        assert all(torch.equal(a[key], b[key]) for key in a)
    whole, parts = (list(map(without_times, rows(tmp_path / run))) for run in ("whole", "parts"))
    assert whole == parts


def test_attention_is_drawn_and_measured_at_every_evaluation(run_dir):
    evaluated = [row for row in rows(run_dir) if "WER_val" in row]
    assert len(evaluated) == 2
    for row in evaluated:
        for part in ("train", "val"):
            assert 0 <= row[f"attention_monotonicity_{part}"] <= 1
            assert 0 <= row[f"attention_coverage_{part}"] <= 1
            (figure,) = (run_dir / "logs").glob(f"attention_{part}-{row['step']:07d}.png")
            assert figure.stat().st_size > 1000
        assert {"loss_ctc_val", "loss_attention_val"} <= row.keys()
    assert any("loss_attention_train" in row for row in rows(run_dir))


def test_a_listener_starts_from_the_weights_of_a_ctc_run(corpus, tmp_path, capsys):
    train(config_of(corpus, tmp_path / "ctc", "model=conformer", "trainer.epochs=1"))
    theirs = load_file(tmp_path / "ctc/checkpoints/best/model.safetensors")
    options = [*JOINT, f"init_from={tmp_path / 'ctc'}"]
    model = build_trainer(config_of(corpus, tmp_path / "las", *options)).model
    for name, tensor in theirs.items():
        assert torch.equal(model.encoder.listener.state_dict()[name], tensor), name
    fresh = build_trainer(config_of(corpus, tmp_path / "fresh", *JOINT)).model
    for name, tensor in fresh.speller.state_dict().items():
        assert torch.equal(model.speller.state_dict()[name], tensor), name
    assert "speller.head.weight" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"another model:\n  listener\.blocks"):
        build_trainer(config_of(corpus, tmp_path / "other", *options, "model.listener.size=xs"))


# --- inference


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A minute of speech, silence, noise, and next to nothing."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "audio").mkdir()
    minute = np.concatenate([say("ab cde ")] * 60)[: 60 * SAMPLE_RATE]
    clips = {
        "minute": minute,
        "silence": np.zeros(5 * SAMPLE_RATE, np.float32),
        "noise": hiss(5.0, seed=1),
        "click": say("a")[:160],
    }
    for name, samples in clips.items():
        soundfile.write(folder / "audio" / f"{name}.wav", samples, SAMPLE_RATE)
    return folder


def infer(run_dir, recordings, *overrides):
    return Inferencer(
        compose(
            "inference",
            "datasets=custom_dir",
            f"datasets.test.data_dir={recordings}",
            f"inferencer.from_pretrained={run_dir}",
            "inferencer.num_workers=0",
            "inferencer.device=cpu",
            *overrides,
        )
    ).run()


@pytest.mark.parametrize(
    "decoder",
    [
        ["decoder=attention", "decoder.beam_width=1"],
        ["decoder=joint", "decoder.beam_width=3"],
        ["decoder=greedy"],
        ["decoder=beam", "decoder.beam_width=8"],
    ],
    ids=lambda decoder: decoder[0],
)
def test_anything_is_decoded_with_nothing_but_another_decoder(run_dir, recordings, decoder):
    if decoder[0] == "decoder=beam":
        pytest.importorskip("numba")
    evaluation = infer(run_dir, recordings, *decoder)
    assert evaluation.hypotheses.keys() == {"minute", "silence", "noise", "click"}
    assert not evaluation.skipped
    for hypothesis in evaluation.hypotheses.values():
        assert hypothesis.frames == sorted(hypothesis.frames)
        assert len(hypothesis.frames) == len(hypothesis.tokens)
    assert len(evaluation.hypotheses["minute"].tokens) <= 2 * 60 * 25


def test_words_of_an_attention_decoder_have_times(run_dir, recordings):
    for name in ("attention", "joint"):
        section = compose("inference", f"decoder={name}", "decoder.beam_width=2").decoder
        recognizer = Recognizer.from_pretrained(run_dir, "cpu", section)
        for transcript in recognizer.transcribe(
            [recordings / "audio/minute.wav", recordings / "audio/noise.wav"]
        ):
            assert [word.text for word in transcript.words] == transcript.text.split()
            assert transcript.token_times == sorted(transcript.token_times)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["model=las"], "does not train the model's speller: choose loss=joint"),
        (["model=las", "loss=attention"], "does not train CTC.*choose decoder=attention"),
        (["model=las", "loss=attention", "decoder=joint"], "does not train CTC"),
    ],
)
def test_what_no_loss_trains_is_not_trained_in_silence(corpus, tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        build_trainer(config_of(corpus, tmp_path, *options))


def test_a_speller_may_be_frozen_where_ctc_is_trained_alone(corpus, tmp_path):
    build_trainer(config_of(corpus, tmp_path, "model=las", "trainer.freeze=[speller]"))


def test_attention_cannot_be_asked_of_a_model_of_ctc(corpus, tmp_path):
    with pytest.raises(ValueError, match=r"decoder=joint .* CTC alone: .*model=las"):
        build_trainer(config_of(corpus, tmp_path, "model=conformer", "decoder=joint"))
    section = compose("inference", "decoder=attention").decoder
    with pytest.raises(ValueError, match="decoder=attention"):
        build_decoder(section, CTCTextEncoder(), None)


def test_the_language_model_of_a_joint_decoder_is_tuned_like_any_other(run_dir, corpus, tmp_path):
    for library in ("numba", "kenlm"):
        pytest.importorskip(library)
    (tmp_path / "lm.arpa").write_text(ARPA)
    found = tune(
        compose(
            "tune",
            "datasets=an4",
            f"datasets.root={corpus}",
            f"tune.from_pretrained={run_dir}",
            "decoder=joint_lm",
            "decoder.beam_width=2",
            f"decoder.lm_path={tmp_path / 'lm.arpa'}",
            f"tune.folder={tmp_path}",
            "tune.alphas=[0,1]",
            "tune.betas=[0]",
            "tune.refine=0",
            "tune.processes=1",
            "tune.num_workers=0",
            "tune.device=cpu",
        )
    )
    evaluation = Inferencer(
        compose(
            "inference",
            "decoder=tuned",
            "decoder.which=joint+lm",
            "datasets=an4",
            f"datasets.root={corpus}",
            f"inferencer.from_pretrained={run_dir}",
            "inferencer.part=val",
            "inferencer.num_workers=0",
            "inferencer.device=cpu",
        )
    ).run()
    assert evaluation.errors.wer == pytest.approx(found.best.sums()[0].rate)
    assert checkpoint.find_checkpoint(run_dir) in found.stored.parents
