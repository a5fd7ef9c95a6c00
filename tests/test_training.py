"""The training loop: what it logs, what it keeps, and that stopping or cutting changes nothing."""

import json
import shutil

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from asrlib import checkpoint, text
from asrlib.build import build
from asrlib.configs import compose
from asrlib.result import Result, add_result, load_results, save_results
from asrlib.training import Inferencer, build_trainer, saving, train
from asrlib.training.distributed import World
from asrlib.training.optimizer import adamw
from asrlib.training.schedule import Noam, OneCycle, WarmupCosine
from asrlib.training.step import take
from tests.corpus import say, tiny_overrides, write_parts

RUNS = ("whole", "halves")


def tiny_config(corpus, run_dir, *overrides):
    return compose("train", *tiny_overrides(corpus, run_dir), *overrides)


def weights(run_dir, name="step-*"):
    newest = max((run_dir / "checkpoints").glob(name))
    return load_file(newest / "model.safetensors")


def rows(run_dir):
    return [json.loads(line) for line in (run_dir / "logs/metrics.jsonl").open()]


def assert_equal_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_training_twice_gives_bit_equal_weights_whatever_the_workers(corpus, tmp_path):
    train(tiny_config(corpus, tmp_path / "a"))
    train(tiny_config(corpus, tmp_path / "b", "trainer.num_workers=2"))
    assert_equal_weights(weights(tmp_path / "a"), weights(tmp_path / "b"))


@pytest.mark.parametrize(
    "options", [[], ["trainer.average=0.9", "loss=cr_ctc", "augmentations=cr_ctc"]]
)
def test_resumed_equals_uninterrupted(corpus, tmp_path, options):
    train(tiny_config(corpus, tmp_path / "whole", *options))
    first = build_trainer(tiny_config(corpus, tmp_path / "halves", *options))
    validate = first._validate

    def cut(epoch):
        if first.progress.epoch == 1:
            raise RuntimeError("power cut")
        return validate(epoch)

    first._validate = cut
    with pytest.raises(RuntimeError, match="power cut"):
        first.train()
    train(tiny_config(corpus, tmp_path / "halves", *options))
    whole, halves = (max((tmp_path / run / "checkpoints").glob("step-*")) for run in RUNS)
    files = sorted(path.name for path in whole.glob("*.safetensors"))
    assert ("raw.safetensors" in files) == bool(options)
    for name in files:
        assert_equal_weights(load_file(whole / name), load_file(halves / name))
    timed = "audio_seconds_per_second_train"
    untimed = [
        [{k: v for k, v in row.items() if k != timed} for row in rows(tmp_path / run)]
        for run in RUNS
    ]
    assert untimed[0] == untimed[1]


def test_a_finished_training_is_left_as_it_is(corpus, tmp_path):
    train(tiny_config(corpus, tmp_path))
    before = rows(tmp_path)
    assert train(tiny_config(corpus, tmp_path)).finished
    assert rows(tmp_path) == before


def test_what_becomes_of_a_checkpoint_does_not_reach_the_training_that_goes_on(corpus, tmp_path):
    train(tiny_config(corpus, tmp_path, "trainer.epochs=1"))
    trainer = build_trainer(tiny_config(corpus, tmp_path, "trainer.epochs=1"))
    saving.resume(trainer, trainer.start)
    moments = [state["exp_avg"] for state in trainer.optimizer.state.values()]
    before = [moment.clone() for moment in moments]
    assert any(moment.any() for moment in before)
    for path in trainer.start.glob("*.safetensors"):
        with path.open("r+b") as file:  # in place, as cp does
            file.write(bytes(path.stat().st_size))
    assert all(torch.equal(*pair) for pair in zip(moments, before, strict=True))


def test_accumulated_small_batches_make_the_step_of_one_large_batch(corpus, tmp_path):
    quiet = ["augmentations=none", "model.dropout=0", "trainer.epochs=1", "optimizer.lr=1e-4"]
    large = build_trainer(tiny_config(corpus, tmp_path / "l", *quiet, "trainer.batch_seconds=1e6"))
    small = build_trainer(tiny_config(corpus, tmp_path / "s", *quiet, "trainer.accumulate=100"))
    assert len(large.train_loader) == 1
    assert len(small.train_loader) > 1
    for trainer in (large, small):
        trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=1e-4)
        trainer._base_rates = [1e-4]
        trainer.schedule = lambda progress: 1.0
        trainer._train_epoch()
    logged = [rows(tmp_path / name)[0] for name in "ls"]
    for name in ("loss_train", "grad_norm_train"):
        assert logged[0][name] == pytest.approx(logged[1][name], rel=1e-4)
    for a, b in zip(large.model.parameters(), small.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_the_gradient_norm_is_measured_before_clipping(corpus, tmp_path):
    run = ["augmentations=none", "model.dropout=0", "trainer.epochs=1", "trainer.batch_seconds=1e6"]
    norms = []
    for limit in (1e9, 1e-3):
        run_dir = tmp_path / str(limit)
        train(tiny_config(corpus, run_dir, *run, f"trainer.max_grad_norm={limit}"))
        norms.append(rows(run_dir)[0]["grad_norm_train"])
    assert norms[0] == norms[1] > 1e-2


def test_logs_hold_rates_samples_spectrograms_and_audio_of_both_parts(corpus, tmp_path):
    progress = train(tiny_config(corpus, tmp_path))
    names = set().union(*rows(tmp_path))
    assert names >= {
        "step",
        "epoch",
        "loss_train",
        "grad_norm_train",
        "learning_rate_train",
        "audio_seconds_per_second_train",
        "loss_val",
        "WER_val",
        "CER_val",
    }
    for part in ("train", "val"):
        table = tmp_path / f"logs/samples_{part}-{progress.step:07d}.jsonl"
        samples = [json.loads(line) for line in table.open()]
        assert len(samples) == 3
        assert set(samples[0]) == {"utterance_id", "target", "predict", "CER", "WER"}
        assert list((tmp_path / "logs").glob(f"spectrogram_{part}-*.png"))
        assert list((tmp_path / "logs").glob(f"audio_{part}-*.flac"))


def test_the_random_samples_change_from_epoch_to_epoch(corpus, tmp_path):
    train(tiny_config(corpus, tmp_path, "trainer.epochs=4", "trainer.log_samples=2"))
    chosen = {
        tuple(json.loads(line)["utterance_id"] for line in table.open())
        for table in (tmp_path / "logs").glob("samples_train-*.jsonl")
    }
    assert len(chosen) > 1


def test_two_views_are_counted_as_audio_and_each_part_of_the_loss_is_logged(corpus, tmp_path):
    run = ["augmentations.waveform.speed=null", "trainer.epochs=1"]
    once = train(tiny_config(corpus, tmp_path / "one", *run))
    twice = train(tiny_config(corpus, tmp_path / "two", *run, "loss=cr_ctc"))
    assert twice.audio_seconds == 2 * once.audio_seconds > 0
    row, *_, last = rows(tmp_path / "two")
    mixed = row["loss_ctc_train"] + 0.2 * row["loss_consistency_train"]
    assert row["loss_train"] == pytest.approx(mixed, rel=1e-5)
    assert row["loss_consistency_train"] > 0
    assert last["loss_ctc_val"] == last["loss_val"]
    assert not [name for name in set().union(*rows(tmp_path / "one")) if "_ctc_" in name]


@pytest.mark.parametrize("augmentations", ["cr_ctc", "robust"])
def test_the_views_of_a_batch_differ_by_their_masks_alone(corpus, tmp_path, augmentations):
    chosen = ["loss=cr_ctc", f"augmentations={augmentations}", "model.dropout=0"]
    config = tiny_config(corpus, tmp_path, *chosen)
    trainer = build_trainer(config)
    seen, encoder = [], trainer.model.encoder
    encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    take(trainer, [next(iter(trainer.train_loader))])
    ((spectrogram, lengths),) = seen
    first, second = spectrogram.chunk(2)
    assert torch.equal(*lengths.chunk(2))
    unmasked = (first != 0) & (second != 0)
    assert torch.equal(first[unmasked], second[unmasked])
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_utterances_without_a_ctc_path_are_named_and_counted(corpus, tmp_path):
    write_parts(tmp_path / "data", train=4, dev=4, test=4)
    texts = tmp_path / "data/train/transcriptions"
    victim = sorted(texts.iterdir())[1]
    victim.write_text("a" * 400)
    progress = train(tiny_config(tmp_path / "data", tmp_path / "run", "augmentations=none"))
    assert progress.infeasible == {victim.stem: 2}  # once an epoch


def test_an_epoch_that_has_nothing_to_learn_is_an_error_that_names_why(tmp_path, capsys):
    write_parts(tmp_path / "data", train=3, dev=2)
    for path in (tmp_path / "data/train/transcriptions").iterdir():
        path.write_text("a" * 400)
    trainer = build_trainer(tiny_config(tmp_path / "data", tmp_path / "run", "augmentations=none"))
    with pytest.raises(ValueError, match="an epoch without a step"):
        trainer.train()
    assert trainer.progress.infeasible == {f"train{i}-s{i % 2}-b": 1 for i in range(3)}
    assert capsys.readouterr().out.count("more labels than frames") == 3


def test_steps_before_one_that_is_left_out_are_logged(corpus, tmp_path, monkeypatch):
    def take_all_but_the_last(trainer, batches):
        last = trainer.progress.step == 2
        return None if last else take(trainer, batches)

    monkeypatch.setattr("asrlib.training.step.take", take_all_but_the_last)
    options = ("trainer.epochs=1", "trainer.log_every=100", "trainer.batch_seconds=2")
    trainer = build_trainer(tiny_config(corpus, tmp_path, *options))
    trainer.train()
    (row,) = (row for row in rows(tmp_path) if "loss_train" in row)
    assert (row["step"], row["epoch"]) == (2, 1.0)


def test_a_part_of_the_loss_may_be_switched_off_within_an_epoch(corpus, tmp_path):
    model = [
        "model=conformer",
        "model.size=xxs",
        "model.intermediate_layers=[1]",
        "trainer.log_every=100",
    ]
    stopped = ["loss=inter_ctc", "trainer.max_hours=1e-9"]
    assert not train(tiny_config(corpus, tmp_path, *model, *stopped)).finished
    accepted = ["loss=ctc", "trainer.accept_changes=[loss]"]
    assert train(tiny_config(corpus, tmp_path, *model, *accepted)).finished
    first = next(row for row in rows(tmp_path) if "loss_train" in row)
    assert "loss_intermediate_train" not in first


def test_a_run_that_is_shortened_to_what_it_had_is_evaluated_once(corpus, tmp_path, monkeypatch):
    rarely = "trainer.eval_every=3"
    trainer = build_trainer(tiny_config(corpus, tmp_path, "trainer.epochs=6", rarely))
    monkeypatch.setattr(trainer.stopping, "reason", lambda: "time" if trainer._epochs > 2 else None)
    assert not trainer.train().finished
    accepted = ["trainer.epochs=2", "trainer.accept_changes=[trainer.epochs]"]
    for _ in range(2):  # the second has nothing left to do
        progress = train(tiny_config(corpus, tmp_path, rarely, *accepted))
        assert progress.finished and progress.best_epoch == 2
        assert [row["epoch"] for row in rows(tmp_path) if "WER_val" in row] == [2]
    assert (tmp_path / "checkpoints/best/model.safetensors").exists()


def test_a_dev_without_transcripts_is_refused_before_the_first_step(tmp_path):
    write_parts(tmp_path / "data", train=4, dev=2)
    shutil.rmtree(tmp_path / "data/dev/transcriptions")
    with pytest.raises(ValueError, match="dev has no transcripts"):
        build_trainer(tiny_config(tmp_path / "data", tmp_path / "run"))


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("+text_encoder.vocabulary_size=64", r"leave it out \(~text_encoder\.vocabulary_size\)"),
        ("+model.beams=3", r"has no option 'beams': leave it out \(~SECTION\.beams\)"),
    ],
)
def test_an_option_of_another_choice_is_refused_by_name(corpus, tmp_path, option, says):
    with pytest.raises(ValueError, match=says):
        build_trainer(tiny_config(corpus, tmp_path, option))


@pytest.mark.parametrize("part", ["train", "dev"])
def test_audio_that_breaks_during_training_is_named_and_the_rest_goes_on(tmp_path, part, capsys):
    write_parts(tmp_path / "data", train=4, dev=4, test=4)
    trainer = build_trainer(tiny_config(tmp_path / "data", tmp_path / "run"))
    broken = sorted((tmp_path / "data" / part / "audio").iterdir())[0]
    broken.write_bytes(b"not audio any more")
    progress = trainer.train()
    assert set(progress.unreadable) == {broken.stem}
    assert f"left out {broken.stem}" in capsys.readouterr().out
    assert progress.finished


def test_a_dev_of_which_nothing_can_be_read_is_not_called_one_without_transcripts(tmp_path):
    write_parts(tmp_path / "data", train=4, dev=2)
    trainer = build_trainer(tiny_config(tmp_path / "data", tmp_path / "run"))
    for path in (tmp_path / "data/dev/audio").iterdir():
        path.write_bytes(b"not audio any more")
    with pytest.raises(ValueError, match="no recording of dev that has a transcript can be read"):
        trainer.train()


def test_processes_wait_for_the_one_that_writes(corpus, tmp_path):
    """A launcher kills the others when one of them is gone with the status of a stop."""
    events = []

    class Watched(World):
        def gather(self, value):
            events.append("together")
            return super().gather(value)

    config = tiny_config(corpus, tmp_path, "trainer.max_hours=1e-9")
    trainer = build_trainer(config, Watched())
    trainer.writer.close = lambda: events.append("closed")
    assert not trainer.train().finished
    assert events[-2:] == ["closed", "together"]


def test_labels_of_a_start_that_came_to_no_checkpoint_are_kept_for_the_same_texts_alone(
    corpus, tmp_path, monkeypatch
):
    learned, learn = [], text.learn

    def noted(texts, **options):
        learned.append(list(texts))
        return learn(learned[-1], **options)

    monkeypatch.setattr(text, "learn", noted)
    others = write_parts(tmp_path / "others", train=9, dev=2)
    made = [
        build_trainer(tiny_config(root, tmp_path / "run")).text_encoder
        for root in (others, corpus, corpus)
    ]
    assert len(learned) == 2 and learned[0] != learned[1]
    assert made[1].to_dict() == made[2].to_dict()


def test_recordings_to_draw_from_may_move_but_not_change(corpus, tmp_path):
    for folder, pitches in (("one", "ab"), ("two", "ab"), ("three", "abc")):
        (tmp_path / folder).mkdir()
        for pitch in pitches:
            soundfile.write(tmp_path / folder / f"{pitch}.wav", say(pitch), 16_000)

    def config(folder):
        place = f"augmentations.waveform.background.data_dir={tmp_path / folder}"
        every = "augmentations.waveform.background.files=['*']"
        return tiny_config(corpus, tmp_path / "run", "augmentations=recordings", place, every)

    saving.save(build_trainer(config("one")))
    build_trainer(config("two"))
    with pytest.raises(
        ValueError, match=r"augmentations\.waveform\.background: 2 recordings .* now"
    ):
        build_trainer(config("three"))


def test_training_stops_early_when_dev_does_not_improve(corpus, tmp_path):
    frozen = ["optimizer.lr=0", "trainer.epochs=9", "trainer.early_stop=2"]
    progress = train(tiny_config(corpus, tmp_path, *frozen))
    assert (progress.best_epoch, progress.epoch, progress.finished) == (1, 3, True)


def test_no_patience_at_all_is_refused(corpus, tmp_path):
    with pytest.raises(ValueError, match="early_stop must be positive"):
        build_trainer(tiny_config(corpus, tmp_path, "trainer.early_stop=0"))


def test_only_the_newest_checkpoints_are_kept(corpus, tmp_path):
    train(tiny_config(corpus, tmp_path, "trainer.epochs=4", "trainer.keep_checkpoints=2"))
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert len(kept) == 3
    assert kept[0] == "best"


def test_inference_writes_each_text_under_its_own_id_and_a_valid_result(corpus, tmp_path):
    train(tiny_config(corpus, tmp_path / "run", "name=tiny"))
    evaluation = Inferencer(
        compose(
            "inference",
            "datasets=an4",
            f"datasets.root={corpus}",
            f"inferencer.from_pretrained={tmp_path / 'run'}",
            f"inferencer.save_path={tmp_path / 'out'}",
            f"inferencer.result_path={tmp_path / 'result.json'}",
            "inferencer.num_workers=0",
        )
    ).run()
    ids = sorted(p.stem for p in (corpus / "test/audio").iterdir())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{id}.txt" for id in ids]
    (result,) = load_results(tmp_path / "result.json")
    assert (result.name, result.test_data, result.decoder) == ("tiny", "an4 test", "greedy")
    assert result.utterances == len(ids)
    assert result.wer == evaluation.errors.wer


def test_a_loaded_checkpoint_gives_bit_equal_outputs(corpus, tmp_path):
    trainer = build_trainer(tiny_config(corpus, tmp_path))
    trainer.train()
    newest = checkpoint.find_latest(tmp_path / "checkpoints")
    model, encoder, _ = checkpoint.load_acoustic_model(newest)
    assert encoder.to_dict() == trainer.text_encoder.to_dict()
    audio, length = torch.randn(1, 16_000), torch.tensor([16_000])
    trainer.model.eval()
    with torch.no_grad():
        a, b = (m(audio, length)["log_probs"] for m in (model, trainer.model))
    assert torch.equal(a, b)


def test_a_checkpoint_is_complete_or_absent(tmp_path, corpus, monkeypatch):
    trainer = build_trainer(tiny_config(corpus, tmp_path))
    monkeypatch.setattr(checkpoint.OmegaConf, "save", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        saving.save(trainer, is_best=True)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_configuration_cannot_reach_outside_the_library():
    with pytest.raises(ValueError, match="not part of asrlib"):
        build({"_target_": "os.system", "command": "true"})
    with pytest.raises(ValueError, match="not part of asrlib"):
        build({"_target_": "asrlib.model.MLP", "a": [{"b": {"_target_": "os.getcwd"}}]})


def test_an_unknown_key_is_refused(corpus, tmp_path):
    with pytest.raises(Exception, match="epoch_count"):
        tiny_config(corpus, tmp_path, "trainer.epoch_count=3")
    with pytest.raises(TypeError, match="epoch_count"):
        build_trainer(tiny_config(corpus, tmp_path, "+trainer.epoch_count=3"))
    with pytest.raises(ValueError, match="batch_seconds"):
        build_trainer(tiny_config(corpus, tmp_path, "trainer.batch_seconds=0"))


@pytest.mark.parametrize("schedule", [WarmupCosine(warmup=0.1), OneCycle(warmup=0.3)])
def test_a_schedule_rises_to_one_and_falls(schedule):
    at = [schedule(i / 1000) for i in range(1001)]
    peak = at.index(max(at))
    assert at[peak] == pytest.approx(1.0)
    assert peak == round(1000 * schedule.warmup)
    assert at[: peak + 1] == sorted(at[: peak + 1])
    assert at[peak:] == sorted(at[peak:], reverse=True)
    assert 0 < at[-1] < 0.02


def test_one_cycle_is_that_of_torch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=101, div_factor=25)
    # torch puts the peak at pct_start * total - 1; with 101 steps positions are 0 … 100
    ours = OneCycle(warmup=(0.3 * 101 - 1) / 100, initial=1 / 25, final=1 / 25e4)
    for position in range(101):
        assert theirs.get_last_lr()[0] == pytest.approx(ours(position / 100), abs=1e-6)
        optimizer.step()
        if position < 100:
            theirs.step()


def test_noam_is_that_of_the_paper():
    steps, warmup, width = 1000, 100, 256
    highest, noam = (width * warmup) ** -0.5, Noam(warmup=warmup / steps)
    for step in range(1, steps + 1):
        paper = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert highest * noam(step / steps) == pytest.approx(paper)
    assert noam(0.1) == 1.0
    assert noam(0) == 0.0
    with pytest.raises(ValueError, match="warm-up"):
        Noam(warmup=0)


def test_only_matrices_and_kernels_decay():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 4)
            self.conv = torch.nn.Conv1d(3, 4, 5)
            self.rnn = torch.nn.GRU(3, 4)
            self.norm = torch.nn.LayerNorm([3, 4])
            self.batch_norm = torch.nn.BatchNorm1d(4)
            self.embedding = torch.nn.Embedding(3, 4)
            self.position_bias = torch.nn.Parameter(torch.zeros(2, 3))
            self.frozen = torch.nn.Linear(3, 4).requires_grad_(False)

    model = Model()
    decayed, others = adamw(model, lr=1.0, weight_decay=0.1).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [names[id(p)] for p in decayed["params"]] == [
        "linear.weight",
        "conv.weight",
        "rnn.weight_ih_l0",
        "rnn.weight_hh_l0",
    ]
    assert len(decayed["params"]) + len(others["params"]) == len(names) - 2


def test_what_cannot_be_compiled_trains_as_it_is_and_says_so(corpus, tmp_path, monkeypatch, capsys):
    def without_compiler(*_, **__):
        raise RuntimeError("no C++ compiler\nand a long trace")

    monkeypatch.setattr(torch, "compile", without_compiler)
    progress = train(tiny_config(corpus, tmp_path, "trainer.compile=true", "trainer.epochs=1"))
    assert progress.finished
    assert "nothing can be compiled here: no C++ compiler\n" in capsys.readouterr().out


def test_a_compiled_encoder_keeps_the_names_of_its_weights(corpus, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda f, **options: compiled.append(options) or f)
    trainer = build_trainer(tiny_config(corpus, tmp_path, "trainer.compile=true"))
    plain = build_trainer(tiny_config(corpus, tmp_path))
    assert compiled == [{}, {"dynamic": True}]
    assert trainer.model.state_dict().keys() == plain.model.state_dict().keys()


@pytest.mark.slow
def test_a_compiled_model_trains_like_the_plain_one(corpus, tmp_path, capsys):
    options = ["model=mlp", "model.width=32", "trainer.precision=fp32", "trainer.epochs=1"]
    for name in ("false", "true"):
        overrides = [o for o in tiny_overrides(corpus, tmp_path / name) if "model.size" not in o]
        train(compose("train", *overrides, *options, f"trainer.compile={name}"))
    assert "no effect" not in capsys.readouterr().out
    plain, compiled = (weights(tmp_path / name) for name in ("false", "true"))
    assert plain.keys() == compiled.keys()
    for name in plain:
        torch.testing.assert_close(compiled[name], plain[name], atol=1e-4, rtol=1e-3)


def test_a_result_that_contradicts_itself_is_refused(tmp_path):
    row = dict.fromkeys(("system", "name", "commit", "command", "date"), "x")
    row |= dict.fromkeys(("train_data", "test_data", "decoder", "device"), "x")
    row |= {"wer": 50.0, "cer": 20.0, "wer_interval": [40.0, 60.0], "substitutions": 3}
    row |= {"deletions": 1, "insertions": 1, "words": 10, "utterances": 2, "parameters": 5}
    row |= {"train_hours": 0.1, "audio_hours_seen": 1.0, "seed": 0}
    save_results(tmp_path / "r.json", [Result(**row)])
    assert load_results(tmp_path / "r.json")[0].wer == 50.0
    add_result(tmp_path / "r.json", Result(**row | {"decoder": "beam"}))
    add_result(tmp_path / "r.json", Result(**row | {"cer": 10.0}))  # takes the place of the first
    found = [(result.decoder, result.cer) for result in load_results(tmp_path / "r.json")]
    assert found == [("beam", 20.0), ("x", 10.0)]
    with pytest.raises(ValueError, match="edits"):
        Result(**row | {"wer": 0.5})
    with pytest.raises(TypeError, match="words"):
        Result(**row | {"words": "ten"})
    (tmp_path / "r.json").write_text(json.dumps(row | {"extra": 1}))
    with pytest.raises(ValueError, match="extra"):
        load_results(tmp_path / "r.json")
