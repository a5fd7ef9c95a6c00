"""Two processes train as one would with the same batches in a step."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from asrlib import checkpoint
from asrlib.configs import compose
from asrlib.tracking.errors import HYPOTHESES
from asrlib.training import build_trainer, train
from asrlib.training.stopping import STATUS
from tests.corpus import tiny_overrides, write_parts
from tests.processes import Strike, Training, free_port

TIMED = "audio_seconds_per_second_train"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Batches of unequal size and odd number, a recording that is cut short, a text that is too long."""
    root = write_parts(tmp_path_factory.mktemp("corpus"), train=9, dev=7)
    recording, *_, other = sorted((root / "train/audio").iterdir())
    os.truncate(recording, recording.stat().st_size // 2)
    (root / f"train/transcriptions/{other.stem}.txt").write_text("a" * 400)
    return root


def overrides(corpus, run_dir, *others):
    """Draws for an utterance do not depend on the process, those for dropout do."""
    return [
        *tiny_overrides(corpus, run_dir),
        "model=conformer",
        "model.dropout=0",
        "optimizer.lr=3e-3",
        "trainer.precision=fp32",
        "trainer.batch_seconds=2.5",
        "trainer.average=0.9",
        *others,
    ]


def together(corpus, run_dir, *others, strike=None, size=2):
    run = Training(overrides(corpus, run_dir, *others), run_dir / "output", strike, size)
    return run.wait(), run.text


def config(corpus, run_dir, *others):
    return compose("train", *overrides(corpus, run_dir, *others))


def newest(run_dir):
    return checkpoint.find_latest(run_dir / "checkpoints")


def log(run_dir):
    rows = [json.loads(line) for line in (run_dir / "logs/metrics.jsonl").open()]
    return [{k: v for k, v in row.items() if k != TIMED} for row in rows]


def assert_same_run(run_dir, expected, exactly):
    tolerance = {} if exactly else {"rel": 1e-4}
    for row, wanted in zip(log(run_dir), log(expected), strict=True):
        assert row == (wanted if exactly else pytest.approx(wanted, **tolerance))
    for name in ("model", "raw", "optimizer"):
        a, b = (load_file(newest(run) / f"{name}.safetensors") for run in (run_dir, expected))
        assert a.keys() == b.keys()
        for key, wanted in b.items():
            # AdamW divides small gradients by their own size, so a last digit counts for more there
            limits = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-3, "atol": 1e-5}
            torch.testing.assert_close(a[key], wanted, **limits, msg=f"{name}: {key}")


@pytest.fixture(scope="module")
def two(corpus, tmp_path_factory):
    """A run of two processes."""
    run_dir = tmp_path_factory.mktemp("two")
    statuses, output = together(corpus, run_dir)
    assert statuses == [0, 0], output
    return run_dir, output


def test_two_processes_are_one_that_accumulates_two_batches(corpus, two, tmp_path):
    run_dir, output = two
    trainer = build_trainer(config(corpus, tmp_path, "trainer.accumulate=2"))
    epochs = map(trainer.train_loader.batch_sampler.batches, range(2))
    assert any(len(batches) % 2 for batches in epochs), "no step in which one process has nothing"
    trainer.train()
    assert_same_run(run_dir, tmp_path, exactly=False)
    found, wanted = (checkpoint.read_state(newest(run)) for run in (run_dir, tmp_path))
    for key in ("step", "audio_seconds", "rows", "epoch", "facts", "best_wer", "best_cer"):
        assert found[key] == wanted[key], key
    for key in ("unreadable", "infeasible"):
        assert found[key] == wanted[key], key
        assert len(found[key]) == 1, key
    assert output.count("epoch   1") == 1, "one process alone tells and writes"
    a, b = ((run / HYPOTHESES).read_text().splitlines() for run in (run_dir, tmp_path))
    assert sorted(a) == sorted(b)
    assert len(a) == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_all_stop_with_one_and_go_on_bit_for_bit(corpus, two, tmp_path, number):
    statuses, output = together(
        corpus, tmp_path, "trainer.save_every_minutes=1e-9", strike=Strike(7000, signal=number)
    )
    if number == signal.SIGTERM:  # which only the last process got
        assert statuses == [STATUS, STATUS], output
        assert output.count("saved in") == 1
    else:
        assert statuses[1] == -signal.SIGKILL
        assert statuses[0] not in (0, STATUS)
    statuses, output = together(corpus, tmp_path)
    assert statuses == [0, 0], output
    assert_same_run(tmp_path, two[0], exactly=True)


def test_one_process_goes_on_for_two_if_a_step_has_as_many_batches(corpus, two, tmp_path):
    together(corpus, tmp_path, "trainer.max_hours=1e-9")
    with pytest.raises(ValueError, match="accumulate: 2 batches a step then, 1 batches a step now"):
        train(config(corpus, tmp_path))
    train(config(corpus, tmp_path, "trainer.accumulate=2"))
    assert_same_run(tmp_path, two[0], exactly=False)


@pytest.mark.slow
def test_running_statistics_are_shared_out_so_that_all_go_on_with_the_same(corpus, tmp_path):
    options = ["model=quartznet", "model.size=xs"]
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    statuses, output = together(corpus, tmp_path / "whole", *options)
    assert statuses == [0, 0], output
    together(corpus, tmp_path / "halves", *options, "trainer.max_hours=1e-9")
    statuses, output = together(corpus, tmp_path / "halves", *options)
    assert statuses == [0, 0], output
    assert_same_run(tmp_path / "halves", tmp_path / "whole", exactly=True)


@pytest.mark.slow
def test_torchrun_starts_them_with_the_same_train_py(corpus, two, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    torchrun += [f"--master-port={free_port()}", "train.py"]
    for last, status in (["trainer.max_hours=1e-9"], 1), ([], 0):
        command = [*torchrun, *overrides(corpus, tmp_path, *last)]
        run = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
        assert run.returncode == status, run.stderr
        assert run.stdout.count("128,941 parameters on cpu, 2 processes") == 1
    assert_same_run(tmp_path, two[0], exactly=True)
