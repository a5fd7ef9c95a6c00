"""A training that is stopped anywhere goes on as if it had not been, and what it leaves is sound."""

import json
import os
import re
import secrets
import shutil
import signal
import sys

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from asrlib import checkpoint
from asrlib.configs import compose
from asrlib.files import finish_what_was_killed, folder_written_atomically
from asrlib.randomness import generator
from asrlib.training import build_trainer, saving, train
from asrlib.training.stopping import STATUS, Stopping
from tests.corpus import write_parts
from tests.processes import Strike, Training
from tests.signals import hiss
from tests.survival import (
    assert_same_run,
    everything,
    file_limit,
    files_of,
    flip_a_bit,
    kill_again_and_again,
    log,
    newest,
    overrides,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("corpus"), train=10, dev=10)


def config(corpus, run_dir, *others):
    return compose("train", *overrides(corpus, run_dir, *others))


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """The run that nothing interrupted."""
    run_dir = tmp_path_factory.mktemp("whole")
    assert train(config(corpus, run_dir)).finished
    return run_dir


# --- killed


@pytest.fixture(scope="module")
def options(corpus, tmp_path_factory):
    """Of a training, given its folder."""
    background = tmp_path_factory.mktemp("noise") / "background"
    return lambda run_dir: overrides(corpus, run_dir, *everything(background))


@pytest.fixture(scope="module")
def whole_of_everything(options, tmp_path_factory):
    """The run that nothing interrupted, and its number of points where it could have been."""
    run_dir = tmp_path_factory.mktemp("everything")
    run = Training(options(run_dir), run_dir / "output", Strike())
    assert run.wait() == [0], run.text
    return run_dir, run.calls()


def assert_survives(options, whole_of_everything, run_dir, kills, kills_in_saving):
    """Kills a training at random points, one sitting after the other, lets it end, and compares."""
    expected, calls = whole_of_everything
    seed = int(os.environ.get("KILL_SEED", secrets.randbits(32)))
    rng = generator(seed, "kills")
    where = rng.permutation([False] * kills + [True] * kills_in_saving).tolist()
    done = []
    try:
        for saving, at, status, _ in kill_again_and_again(
            options(run_dir), run_dir, where, calls, rng
        ):
            done.append((saving, at, status))
        run = Training(options(run_dir), run_dir / "output")
        assert run.wait() == [0], run.text
        assert sum(status != 0 for *_, status in done) >= 0.8 * len(done), "it ended too soon"
        assert any(saving and status for saving, _, status in done), "none in saving"
        assert_same_run(run_dir, expected)
    except AssertionError as error:
        raise AssertionError(f"{error}\nKILL_SEED={seed} repeats this; kills: {done}") from error


def test_killed_anywhere_it_ends_as_if_nothing_had_happened(options, whole_of_everything, tmp_path):
    assert_survives(options, whole_of_everything, tmp_path, kills=5, kills_in_saving=1)


@pytest.mark.slow
@pytest.mark.parametrize("repetition", range(4))
def test_killed_anywhere_many_times_it_ends_as_if_nothing_had_happened(
    options, whole_of_everything, tmp_path, repetition
):
    assert_survives(options, whole_of_everything, tmp_path, kills=5, kills_in_saving=2)


def test_what_a_killed_process_was_writing_is_tidied_up(tmp_path):
    for name in ("replaced", "kept"):
        with folder_written_atomically(tmp_path / name) as folder:
            (folder / "content").write_text("old")
    os.rename(tmp_path / "replaced", tmp_path / ".replaced.12.old")  # killed between the renames
    (tmp_path / ".replaced.12.tmp").mkdir()
    shutil.copytree(tmp_path / "kept", tmp_path / ".kept.13.old")  # killed before its removal
    finish_what_was_killed(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "replaced"]
    assert (tmp_path / "replaced/content").read_text() == "old"


def test_killed_between_the_best_checkpoint_and_the_newest_it_has_both(
    corpus, whole, tmp_path, monkeypatch
):
    write, paths = checkpoint.save_checkpoint, []

    def killed_before_the_second(path, **parts):
        if paths:
            raise KeyboardInterrupt
        paths.append(path)
        write(path, **parts)

    monkeypatch.setattr(checkpoint, "save_checkpoint", killed_before_the_second)
    with pytest.raises(KeyboardInterrupt):  # in the first evaluation, which is the best so far
        train(config(corpus, tmp_path))
    monkeypatch.undo()
    assert train(config(corpus, tmp_path)).finished
    assert_same_run(tmp_path, whole)


def test_a_run_that_never_came_to_a_checkpoint_begins_its_log_anew(corpus, whole, tmp_path):
    trainer = build_trainer(config(corpus, tmp_path))

    def cut(*_):
        raise RuntimeError("power cut")

    trainer.decoder = cut  # in the first evaluation
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.train()
    assert log(tmp_path)
    assert train(config(corpus, tmp_path)).finished
    assert_same_run(tmp_path, whole)


# --- stopped


def test_a_training_in_sittings_of_one_step_is_that_in_one_sitting(corpus, whole, tmp_path, capsys):
    sittings, finished = 0, False
    while not finished:
        finished = train(config(corpus, tmp_path, "trainer.max_hours=1e-9")).finished
        sittings += 1
    assert_same_run(tmp_path, whole)
    assert sittings >= checkpoint.read_state(newest(whole))["step"]
    told = capsys.readouterr().out
    assert re.search(
        r"stopped after step 1, 0\.\d+ epochs: trainer\.max_hours=1e-09 are over", told
    )
    assert "the same command goes on" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_its_processes_stops_it_with_a_checkpoint_and_its_status(
    corpus, whole, tmp_path, number
):
    options = overrides(corpus, tmp_path, "trainer.num_workers=2")
    seed = secrets.randbits(32)
    at = int(generator(seed, "signals").integers(6_000, 12_000))
    run = Training(options, tmp_path / "output", Strike(at, signal=number))
    note = f"\nat call {at}: {run.text}"
    assert run.wait() == [STATUS], note
    assert f"{number.name}; saved in" in run.text, note
    assert "Traceback" not in run.text, note
    assert train(config(corpus, tmp_path)).finished
    assert_same_run(tmp_path, whole, note)


def test_the_command_ends_with_the_status_of_what_is_not_finished(corpus, tmp_path, monkeypatch):
    from train import main

    options = overrides(corpus, tmp_path, "trainer.max_hours=1e-9")
    monkeypatch.setattr(sys, "argv", ["train.py", *options])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == STATUS == 75


def test_a_signal_during_an_evaluation_leaves_it_for_the_next_sitting(
    corpus, whole, tmp_path, monkeypatch
):
    trainer = build_trainer(config(corpus, tmp_path))
    decode, batches = trainer.decoder, []

    def decoder(*arguments):
        if trainer.progress.epoch == 1:
            signal.raise_signal(signal.SIGTERM)
            batches.append(1)
        return decode(*arguments)

    trainer.decoder = decoder
    assert not trainer.train().finished
    assert len(batches) == 1 < len(trainer.val_loader)
    assert [row["epoch"] for row in log(tmp_path) if "WER_val" in row] == [1]
    with monkeypatch.context() as patch:  # killed after the evaluation, before its checkpoint
        patch.setattr(saving, "save", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config(corpus, tmp_path))
    assert [row["epoch"] for row in log(tmp_path) if "WER_val" in row] == [1, 2]
    assert train(config(corpus, tmp_path)).finished
    assert_same_run(tmp_path, whole)


def test_only_a_second_and_later_ctrl_c_interrupts_at_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("asrlib.training.stopping.time.monotonic", lambda: now[0])
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Stopping() as stopping:
        assert stopping.reason() is None
        signal.raise_signal(signal.SIGINT)
        assert stopping.reason() == "SIGINT"
        signal.raise_signal(signal.SIGINT)  # torchrun passes on what its children got already
        now[0] += 10
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# --- the disk


def test_a_full_disk_is_a_clear_error_and_older_checkpoints_stay(
    corpus, whole, tmp_path, monkeypatch
):
    save, kept = saving.save, {}
    with file_limit() as limit:

        def save_the_first(trainer, is_best):
            if trainer.progress.epoch == 2:
                kept.update(files_of(tmp_path / "checkpoints"))
                limit(100_000)  # less than the weights
            return save(trainer, is_best)

        monkeypatch.setattr(saving, "save", save_the_first)
        with pytest.raises(OSError, match=r"checkpoints/.* could not be written: .*File too large"):
            train(config(corpus, tmp_path))
    monkeypatch.undo()
    assert kept
    assert files_of(tmp_path / "checkpoints") == kept
    assert train(config(corpus, tmp_path)).finished
    assert_same_run(tmp_path, whole)


def test_a_log_that_cannot_be_written_is_named(corpus, tmp_path, monkeypatch):
    trainer = build_trainer(config(corpus, tmp_path))
    monkeypatch.setattr(trainer.writer, "rewind", lambda *_: None)
    (tmp_path / "logs/metrics.jsonl").write_text('{"step": 0}\n' * 10_000)
    error = r"metrics\.jsonl could not be written: .*File too large"
    with file_limit() as limit:
        limit(100_000)
        with pytest.raises(OSError, match=error):
            trainer.train()


DAMAGE = {
    "a flipped bit": ("model.safetensors", flip_a_bit),
    "cut short": ("optimizer.safetensors", lambda path: os.truncate(path, 1000)),
    "lost": ("state.json", os.remove),
    "empty": ("checksums.json", lambda path: path.write_text("")),
}


@pytest.fixture(scope="module")
def two_epochs(corpus, tmp_path_factory):
    """A run that was stopped after the second of three epochs."""
    run_dir = tmp_path_factory.mktemp("two")
    trainer = build_trainer(config(corpus, run_dir))
    decode = trainer.decoder

    def decoder(*arguments):
        if trainer.progress.epoch == 2:
            raise RuntimeError("power cut")
        return decode(*arguments)

    trainer.decoder = decoder
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.train()
    return run_dir


@pytest.fixture
def begun(two_epochs, tmp_path):
    """A copy of that run."""
    return shutil.copytree(two_epochs, tmp_path / "run")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on(
    corpus, whole, begun, capsys, damage
):
    name, harm = DAMAGE[damage]
    damaged = newest(begun)
    harm(damaged / name)
    options = [] if damage == "a flipped bit" else ["trainer.epochs=3"]
    assert train(config(corpus, begun, *options)).finished
    told = capsys.readouterr().out
    assert f"{damaged} is damaged (" in told
    assert "after 1.00 epochs" in told
    assert (begun / f"checkpoints/damaged-{damaged.name}").exists()
    assert_same_run(begun, whole)


def test_a_run_of_damaged_checkpoints_does_not_begin_anew(corpus, begun):
    for path in (begun / "checkpoints").glob("step-*"):
        flip_a_bit(path / "optimizer.safetensors")
    for _ in range(2):
        with pytest.raises(OSError, match=r"no checkpoint .* is intact"):
            train(config(corpus, begun))


def test_a_checkpoint_from_before_there_were_checksums_goes_on(corpus, whole, begun):
    path = newest(begun)
    (path / "checksums.json").unlink()
    old = checkpoint.read_state(path)
    for key in ("batches_done", "bad_steps", "bad_in_a_row", "rows", "facts"):
        del old[key]
    for key in ("measured", "measured_seconds"):
        del old[key]
    (path / "state.json").write_text(json.dumps(old))
    assert train(config(corpus, begun)).finished
    a, b = (load_file(newest(run) / "model.safetensors") for run in (begun, whole))
    assert all(torch.equal(a[name], b[name]) for name in b)
    assert log(begun) == log(whole)


# --- another configuration


def test_a_change_that_matters_is_refused_by_name(corpus, begun):
    changes = ["optimizer.lr=1e-3", "model.dropout=0.2", "trainer.epochs=4", "lr_scheduler=noam"]
    with pytest.raises(ValueError, match="this run began with other values") as refusal:
        train(config(corpus, begun, *changes))
    told = str(refusal.value)
    assert "optimizer.lr: 0.01 then, 0.001 now" in told
    assert "trainer.epochs: 3 then, 4 now" in told
    assert "lr_scheduler.final: 0.01 then, absent now" in told
    named = re.search(r"trainer\.accept_changes=\[(.*)\]", told).group(1).split(",")
    assert {"optimizer.lr", "model.dropout", "trainer.epochs", "lr_scheduler._target_"} <= set(
        named
    )
    accepted = "optimizer,model.dropout,trainer.epochs"
    with pytest.raises(ValueError, match="lr_scheduler") as refusal:
        train(config(corpus, begun, *changes, f"trainer.accept_changes=[{accepted}]"))
    assert "optimizer.lr" not in str(refusal.value)


def test_a_change_that_was_accepted_takes_effect(corpus, begun):
    meant = ["optimizer.lr=1e-3", "trainer.epochs=4"]
    accept = "trainer.accept_changes=[optimizer.lr,trainer.epochs]"
    assert train(config(corpus, begun, *meant, accept)).epoch == 4
    assert max(row["learning_rate_train"] for row in log(begun)[-4:] if "loss_train" in row) < 1e-3
    assert train(config(corpus, begun, *meant)).finished, "it is what the run is made of now"


def test_a_finished_training_goes_on_where_more_epochs_are_accepted(corpus, whole, tmp_path):
    run_dir = shutil.copytree(whole, tmp_path / "run")
    more = ["trainer.epochs=4", "trainer.accept_changes=[trainer.epochs]"]
    progress = train(config(corpus, run_dir, *more))
    assert (progress.epoch, progress.finished) == (4, True)


def test_what_does_not_matter_may_change_and_so_may_the_place_of_the_data(
    corpus, whole, begun, tmp_path
):
    moved = shutil.copytree(corpus, tmp_path / "moved")
    free = ["trainer.num_workers=1", "trainer.max_hours=24", "trainer.keep_checkpoints=3", "name=x"]
    assert train(config(moved, begun, *free)).finished
    a, b = (load_file(newest(run) / "model.safetensors") for run in (begun, whole))
    assert all(torch.equal(a[name], b[name]) for name in b)


def test_an_option_that_the_library_got_since_and_that_is_off_is_no_change(corpus, begun):
    assert train(config(corpus, begun, "+augmentations.waveform.of_the_future=null")).finished


def test_another_noise_of_dev_is_refused(corpus, begun, tmp_path):
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise/hiss.wav", hiss(1.0), 16_000)
    noisy = ["datasets=an4_noisy", f"datasets.noise_dir={tmp_path / 'noise'}"]
    with pytest.raises(ValueError, match=r"datasets\.val: .* then, .*NoiseFiles.* now"):
        train(config(corpus, begun, *noisy))


@pytest.mark.parametrize("part", ["train", "dev"])
def test_other_data_in_the_same_place_are_refused(corpus, begun, tmp_path, part):
    moved = shutil.copytree(corpus, tmp_path / "moved")
    text = next((moved / part / "transcriptions").iterdir())
    text.write_text("other words")
    key = {"train": "train", "dev": "val"}[part]
    with pytest.raises(ValueError, match=rf"datasets\.{key}: 10 utterances .* 10 utterances"):
        train(config(moved, begun))
    assert train(config(moved, begun, "trainer.accept_changes=[datasets]")).finished
