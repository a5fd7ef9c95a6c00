"""The training loop: what it logs, what it keeps, and that stopping or cutting changes nothing."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from asrlib import checkpoint
from asrlib.build import build
from asrlib.result import Result, add_result, load_results, save_results
from asrlib.training import Inferencer, build_trainer, train
from asrlib.training.schedule import OneCycle, WarmupCosine
from tests.corpus import configure, tiny_overrides, write_custom_dir


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    for part in ("train", "dev", "test"):
        write_custom_dir(root / part, count=6, seed=part)
    return root


def tiny_config(corpus, run_dir, *overrides):
    return configure("train", *tiny_overrides(corpus, run_dir), *overrides)


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


def test_resumed_equals_uninterrupted(corpus, tmp_path):
    train(tiny_config(corpus, tmp_path / "whole"))
    first = build_trainer(tiny_config(corpus, tmp_path / "halves"))
    validate = first._validate

    def cut():
        if first.progress.epoch == 2:
            raise RuntimeError("power cut")
        return validate()

    first._validate = cut
    with pytest.raises(RuntimeError, match="power cut"):
        first.train()
    train(tiny_config(corpus, tmp_path / "halves"))
    assert_equal_weights(weights(tmp_path / "whole"), weights(tmp_path / "halves"))
    timed = "audio_seconds_per_second_train"
    untimed = [
        [{k: v for k, v in row.items() if k != timed} for row in rows(tmp_path / run)]
        for run in ("whole", "halves")
    ]
    assert untimed[0] == untimed[1]


def test_a_finished_training_is_left_as_it_is(corpus, tmp_path):
    train(tiny_config(corpus, tmp_path))
    before = rows(tmp_path)
    assert train(tiny_config(corpus, tmp_path)).finished
    assert rows(tmp_path) == before


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
        trainer._train_epoch(0)
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


def test_utterances_without_a_ctc_path_are_named_and_counted(corpus, tmp_path):
    for part in ("train", "dev", "test"):
        write_custom_dir(tmp_path / "data" / part, count=4, seed=part)
    text = tmp_path / "data/train/transcriptions"
    victim = sorted(text.iterdir())[1]
    victim.write_text("a" * 400)
    progress = train(tiny_config(tmp_path / "data", tmp_path / "run", "augmentations=none"))
    assert progress.infeasible == {victim.stem: 2}  # once an epoch


def test_audio_that_breaks_during_training_is_named_and_the_rest_goes_on(tmp_path):
    for part in ("train", "dev", "test"):
        write_custom_dir(tmp_path / "data" / part, count=4, seed=part)
    trainer = build_trainer(tiny_config(tmp_path / "data", tmp_path / "run"))
    broken = sorted((tmp_path / "data/train/audio").iterdir())[0]
    broken.write_bytes(b"not audio any more")
    progress = trainer.train()
    assert set(progress.unreadable) == {broken.stem}
    assert progress.finished


def test_training_stops_early_when_dev_does_not_improve(corpus, tmp_path):
    frozen = ["optimizer.lr=0", "trainer.epochs=9", "trainer.early_stop=2"]
    progress = train(tiny_config(corpus, tmp_path, *frozen))
    assert (progress.best_epoch, progress.epoch, progress.finished) == (1, 3, True)


def test_only_the_newest_checkpoints_are_kept(corpus, tmp_path):
    train(tiny_config(corpus, tmp_path, "trainer.epochs=4", "trainer.keep_checkpoints=2"))
    kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert len(kept) == 3
    assert kept[0] == "best"


def test_inference_writes_each_text_under_its_own_id_and_a_valid_result(corpus, tmp_path):
    train(tiny_config(corpus, tmp_path / "run", "name=tiny"))
    evaluation = Inferencer(
        configure(
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
        trainer._save(is_best=True)
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


def test_a_loss_that_is_not_finite_stops_the_training(corpus, tmp_path):
    trainer = build_trainer(tiny_config(corpus, tmp_path))
    with torch.no_grad():
        trainer.model.encoder.head.bias.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"optimizer\.lr"):
        trainer.train()
