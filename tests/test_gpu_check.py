"""`make gpu-check` runs on a CPU from end to end, and says what differs, fails or was left out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asrlib.training import build_trainer
from bench import gpu_agreement, gpu_check, gpu_throughput
from bench.gpu_throughput import Throughput
from tests.test_report import FIELDS, MEASURED

CPU = torch.device("cpu")
# of asrlib's requirements those that training needs no more than decoding or downloading do
ABSENT = ["numba", "kenlm", "pyctcdecode", "youtokentome", "gdown", "wandb", "comet_ml"]
REHEARSAL = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT}))
sys.argv = ["gpu_check", "--device", "cpu", "--tiny", "--out", sys.argv[1]]
runpy.run_module("bench.gpu_check", run_name="__main__")
"""


@pytest.fixture
def few(corpus):
    gpu_agreement._first_step.cache_clear()
    return corpus


def rows_of(path):
    return json.loads(path.read_text())


def test_without_cuda_it_says_so_and_leaves_everything_as_it_is(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(tmp_path / "rows.json")])
    assert gpu_check.main() == 0
    assert "no CUDA device" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_what_differs_or_fails_is_told_and_the_rest_goes_on(tmp_path, capsys):
    report = gpu_check.Report(CPU, minutes=1, out=str(tmp_path / "rows.json"))
    report.attempt("first", lambda: {"ok": False, "loss": 1.23456})
    report.attempt("second", lambda: 1 / 0)
    report.attempt("third", lambda n: {"ok": True, "number": n}, 7)
    assert report.failures == 2
    found = {row["check"]: row for row in rows_of(tmp_path / "rows.json")}
    assert set(found) == {"first", "third"}
    assert found["third"]["number"] == 7
    assert all(MEASURED | FIELDS["bench-gpu"] <= row.keys() for row in found.values())
    out = capsys.readouterr().out
    assert "DIFFERS first: ok False  loss 1.235\n" in out
    assert "FAILED second: ZeroDivisionError" in out
    assert "\nthird: ok True" in out


def test_what_the_time_does_not_suffice_for_is_left_out_by_name(capsys):
    report = gpu_check.Report(CPU, minutes=0, out=None)
    report.attempt("something", lambda: 1 / 0)
    assert (report.failures, report.rows) == (0, [])
    assert "minutes are over: something" in capsys.readouterr().out


def test_rows_of_other_devices_stay_and_those_of_this_one_are_replaced(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"device": "Tesla T4", "check": "old"}]')
    for value in (1, 2):
        report = gpu_check.Report(CPU, minutes=1, out=str(path))
        report.attempt("new", lambda value=value: {"value": value})
    assert [(row["check"], row.get("value")) for row in rows_of(path)] == [
        ("old", None),
        ("new", 2),
    ]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_step_in_fewer_bits_differs_from_float32_as_little_as_it_should(few, precision):
    found = gpu_agreement.one_step(CPU, few, "conformer", "xxs", precision)
    assert found["ok"]
    assert 0 < found["loss_difference"] < gpu_agreement.LOSS[precision]
    assert found["grad_norm_difference"] > 0


@pytest.mark.parametrize("wrong", [{"loss": 1.1}, {"grad_norm": 0.5}])
def test_a_step_that_is_wrong_on_the_device_differs(monkeypatch, wrong):
    def first_step(root, model, size, device, precision):
        values = {"loss": 1.0, "grad_norm": 1.0}
        return values if device == "cpu" else values | wrong

    monkeypatch.setattr(gpu_agreement, "_first_step", first_step)
    found = gpu_agreement.one_step("cuda", None, "conformer", "xxs", "bf16")
    assert found["ok"] is False


def test_features_or_masks_that_are_wrong_on_the_device_differ(monkeypatch):
    audio, lengths = torch.randn(2, 8_000), torch.tensor([8_000, 3_000])
    batch = {"audio": audio, "audio_length": lengths, "utterance_id": ["a", "b"]}
    assert gpu_agreement.features_and_masks(CPU, batch)["ok"]
    with monkeypatch.context() as patch:
        patch.setattr(gpu_agreement.LogMel, "to", lambda self, device: Louder())
        assert not gpu_agreement.features_and_masks(CPU, batch)["ok"]
    masks = iter([torch.ones(2, 51), torch.zeros(2, 51)])
    monkeypatch.setattr(gpu_agreement, "length_mask", lambda *_: next(masks))
    assert gpu_agreement.features_and_masks(CPU, batch)["equal_masks"] is False


class Louder(torch.nn.Module):
    def forward(self, audio, lengths):
        features, frames = gpu_agreement.LogMel()(audio, lengths)
        return 1.1 * features, frames


def test_float16_learns_by_heart_with_a_scaler_step_for_step_like_float32(few, tmp_path):
    by_heart = gpu_agreement.ByHeart(few, tmp_path, steps=3)
    by_heart.on_the_cpu()
    row = by_heart.on(CPU, "fp16")
    assert row["ok"]
    assert row["steps"] >= 3
    assert row["loss_scale"] > 0
    assert 0 < row["curve_difference"] < gpu_agreement.CURVE


@pytest.mark.parametrize(("steps", "higher"), [(20, 0.6), (19, 0.0)])
def test_a_training_that_learns_otherwise_or_too_little_differs(monkeypatch, steps, higher):
    by_heart = gpu_agreement.ByHeart(None, None, steps=20)
    by_heart.expected = [10.0 - i / 10 for i in range(22)]
    losses = [loss + higher * (i > 15) for i, loss in enumerate(by_heart.expected)]
    monkeypatch.setattr(by_heart, "_train", lambda *_: (losses, {"steps": steps}))
    row = by_heart.on(CPU, "bf16")
    assert row["ok"] is False
    assert row["curve_difference"] == pytest.approx(higher / 10)
    monkeypatch.setattr(by_heart, "_train", lambda *_: (by_heart.expected, {"steps": 20}))
    assert by_heart.on(CPU, "bf16")["ok"]


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    throughput, tried = Throughput(CPU, None, 100, 0, 0.1), []

    def train(seconds):
        tried.append(seconds)
        if seconds > 30:
            raise MemoryError
        return {}

    monkeypatch.setattr(throughput, "batches", lambda seconds: seconds)
    monkeypatch.setattr(throughput, "_train", lambda seconds, *_: train(seconds))
    throughput.train("conformer", "s", "fp32")
    assert tried == [100, 50, 25]
    monkeypatch.setattr(throughput, "_train", lambda seconds, *_: train(1000))
    with pytest.raises(MemoryError):
        throughput.train("conformer", "s", "fp32")


def test_a_trainer_that_runs_out_of_memory_makes_smaller_batches(few, monkeypatch):
    throughput, tried = Throughput(CPU, few, 40, 0, 0.01), []
    throughput.products["fp32"] = 1.0

    def build(config):
        trainer, seconds = build_trainer(config), config.trainer.batch_seconds

        def check(encoder, inputs):
            if seconds not in tried:
                tried.append(seconds)
            if seconds > 10:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")

        trainer.model.encoder.register_forward_pre_hook(check)
        return trainer

    monkeypatch.setattr(gpu_throughput, "build_trainer", build)
    row = throughput.train("conformer", "xxs", "fp32")
    assert tried == [40, 20, 10]
    assert row["batch_seconds"] == 10


@pytest.mark.slow
def test_the_rehearsal_runs_with_the_few_libraries_that_training_needs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", REHEARSAL, str(tmp_path / "rows.json")],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(tmp_path / "rows.json")
    assert all(MEASURED | FIELDS["bench-gpu"] <= row.keys() for row in rows)
    seen = [(row["check"], row.get("model"), row.get("precision")) for row in rows]
    for precision in ("fp32", "bf16", "fp16"):
        assert ("matrix products", None, precision) in seen
        assert ("by heart", None, precision) in seen
        for model in gpu_check.SIZES:
            assert ("one step", model, precision) in seen
        assert ("training", "conformer", precision) in seen
    for row in rows:
        if row["check"] == "training":
            assert row["audio_seconds_per_second"] > 0
            assert row["audio_seconds_per_second_through_the_loader"] > 0
            assert row["share_of_matrix_products"] > 0
