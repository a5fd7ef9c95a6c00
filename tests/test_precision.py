"""Number formats of a training: chosen by what the device can, kept by the run, and harmless."""

import math

import pytest
import torch

from asrlib import checkpoint, precision
from asrlib.configs import compose
from asrlib.precision import choose_precision, multiplication_seconds
from asrlib.training import build_trainer, train, watch
from asrlib.training.step import take
from tests.corpus import tiny_overrides

CPU = torch.device("cpu")


def trainer_in(name, corpus, run_dir, *overrides):
    overrides = [*tiny_overrides(corpus, run_dir), f"trainer.precision={name}", *overrides]
    trainer = build_trainer(compose("train", *overrides))
    trainer._set_precision()
    return trainer


def first_batch(trainer):
    trainer.model.train()
    return [next(iter(trainer.train_loader))]


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"fp32": 1.0, "bf16": 0.5, "fp16": 0.4}, "bf16"),  # A100: both; bfloat16 needs no scale
        ({"fp32": 1.0, "bf16": 2.0, "fp16": 0.2}, "fp16"),  # T4: bfloat16 only imitated
        ({"fp32": 1.0, "bf16": None, "fp16": 0.2}, "fp16"),  # V100
        ({"fp32": 1.0, "bf16": 0.9, "fp16": 0.9}, "fp32"),  # not worth it
    ],
)
def test_the_fastest_precision_is_chosen(monkeypatch, seconds, chosen):
    def measured(device, dtype):
        (time,) = (seconds[name] for name, t in precision.DTYPES.items() if t == dtype)
        if time is None:
            raise RuntimeError("no kernel")
        return time

    monkeypatch.setattr(precision, "multiplication_seconds", measured)
    assert choose_precision("auto", torch.device("cuda")) == chosen
    assert choose_precision("auto", CPU) in ("bf16", "fp32"), "float16 is slow on any CPU"


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="bf16"):
        choose_precision("int8", CPU)


def test_a_gpu_without_kernels_is_named_with_what_to_choose_instead(monkeypatch):
    def no_kernel(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch, "ones", no_kernel)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100-PCIE-16GB")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    with pytest.raises(RuntimeError, match=r"Tesla P100.*6\.0.*T4 x2.*trainer\.device=cpu"):
        choose_precision("auto", torch.device("cuda"))


def test_a_multiplication_is_timed():
    assert 0 < multiplication_seconds(CPU, torch.float32) < 60


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_step_comes_near_that_of_float32(corpus, tmp_path, name):
    values = {}
    for which in ("fp32", name):
        trainer = trainer_in(which, corpus, tmp_path / which)
        trainer.precision.scaler = torch.amp.GradScaler("cpu", 256.0, enabled=which == "fp16")
        values[which] = take(trainer, first_batch(trainer))
        assert trainer.progress.step == 1
    for key in ("loss", "grad_norm"):
        assert values[name][key] == pytest.approx(values["fp32"][key], rel=0.05), key
        assert values[name][key] != values["fp32"][key], "computed in the same format"


def test_a_run_goes_on_in_the_precision_in_which_it_began(corpus, tmp_path, monkeypatch):
    train(compose("train", *tiny_overrides(corpus, tmp_path), "trainer.precision=fp16"))
    monkeypatch.setattr(precision, "multiplication_seconds", lambda *_: 1.0)
    assert choose_precision("auto", CPU) == "fp32"
    again = build_trainer(
        compose("train", *tiny_overrides(corpus, tmp_path), "trainer.precision=auto")
    )
    assert again.train().precision == "fp16"
    state = checkpoint.read_state(checkpoint.find_latest(tmp_path / "checkpoints"))
    assert again.precision.scaler.state_dict() == state["loss_scale"]
    assert state["loss_scale"]["scale"] > 0


def test_gradients_beyond_float16_lower_the_scale_and_leave_the_weights(corpus, tmp_path):
    trainer = trainer_in("fp16", corpus, tmp_path)
    batches = first_batch(trainer)
    trainer.precision.scaler = torch.amp.GradScaler("cpu", 2.0**60)
    before = [p.clone() for p in trainer.model.parameters()]
    assert take(trainer, batches) is None
    assert trainer.precision.scaler.get_scale() == 2.0**59
    assert trainer.progress.step == 0
    assert all(map(torch.equal, before, trainer.model.parameters()))


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_no_scale_hides_a_loss_that_is_not_finite(corpus, tmp_path, name):
    trainer = trainer_in(name, corpus, tmp_path)
    batches = first_batch(trainer)
    with torch.no_grad():
        trainer.model.encoder.head.bias.fill_(math.nan)
    assert take(trainer, batches) is None
    assert trainer.progress.bad_steps == {watch.NOT_FINITE: 1}
