"""The running average of weights: its arithmetic, and that it is what is evaluated and exported."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from asrlib import checkpoint
from asrlib.configs import compose
from asrlib.training import build_trainer, evaluation, saving, train
from asrlib.training.averaging import WeightAverage
from tests.corpus import tiny_overrides


class Counting(nn.Module):
    """A parameter, statistics and a counter."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)

    def train_a_little(self, seed):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self(torch.randn(8, 3, generator=generator))

    def forward(self, x):
        return self.norm(self.linear(x))


def config_of(corpus, run_dir, *overrides):
    return compose("train", *tiny_overrides(corpus, run_dir), *overrides)


def assert_equal_tensors(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_the_weighted_mean_of_all_steps(decay):
    module = Counting()
    average = WeightAverage(module, decay)
    seen = []
    for step in range(7):
        module.train_a_little(seed=step)
        average.update()
        seen.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        factors = [decay**age for age in reversed(range(len(seen)))]
        for name in ("linear.weight", "linear.bias", "norm.weight", "norm.running_var"):
            mean = sum(f * s[name].double() for f, s in zip(factors, seen, strict=True))
            expected = (mean / sum(factors)).float()
            torch.testing.assert_close(average.tensors[name], expected, atol=1e-6, rtol=1e-5)
    assert average.tensors["norm.num_batches_tracked"] == 7  # a counter is no mean


def test_the_initialisation_has_no_part_in_it():
    module = Counting()
    average = WeightAverage(module, 0.999)
    module.train_a_little(seed=0)
    average.update()
    assert_equal_tensors(average.tensors, module.state_dict())


def test_within_it_the_averaged_weights_are_in_use_and_then_the_raw_ones_again():
    module = Counting()
    average = WeightAverage(module, 0.9)
    for step in range(3):
        module.train_a_little(seed=step)
        average.update()
    raw = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    kept = {name: tensor.clone() for name, tensor in average.tensors.items()}
    with average.applied():
        assert_equal_tensors(module.state_dict(), kept)
    assert_equal_tensors(module.state_dict(), raw)
    with pytest.raises(ZeroDivisionError), average.applied():
        _ = 1 / 0
    assert_equal_tensors(module.state_dict(), raw)
    assert_equal_tensors(average.tensors, kept)


def test_the_average_is_evaluated_and_exported_and_training_does_not_see_it(corpus, tmp_path):
    trainer = build_trainer(config_of(corpus, tmp_path / "on", "trainer.average=0.8"))
    assert trainer.train().step == trainer.average.updates > 1
    train(config_of(corpus, tmp_path / "off"))
    newest, plain = (
        checkpoint.find_latest(tmp_path / name / "checkpoints") for name in ("on", "off")
    )
    raw = load_file(newest / "raw.safetensors")
    assert_equal_tensors(raw, load_file(plain / "model.safetensors"))
    assert_equal_tensors(raw, trainer.model.encoder.state_dict())
    assert_equal_tensors(load_file(newest / "model.safetensors"), trainer.average.tensors)
    assert not torch.equal(raw["head.bias"], trainer.average.tensors["head.bias"])
    assert not (tmp_path / "off/checkpoints/best/raw.safetensors").exists()
    assert not (tmp_path / "on/checkpoints/best/raw.safetensors").exists()

    lines = (tmp_path / "on/logs/metrics.jsonl").read_text().splitlines()
    logged = [row for row in map(json.loads, lines) if "loss_val" in row]
    model, *_ = checkpoint.load_acoustic_model(newest)
    again = evaluation.evaluate(
        trainer.val_loader, model, trainer.decoder, trainer.text_encoder, trainer.criterion
    )
    assert again.loss == logged[-1]["loss_val"]
    assert again.errors.wer == logged[-1]["WER_val"]

    model, *_ = checkpoint.load_acoustic_model(newest, raw=True)
    assert_equal_tensors(model.encoder.state_dict(), raw)
    with pytest.raises(FileNotFoundError, match=r"step-"):
        checkpoint.load_acoustic_model(tmp_path / "on", raw=True)


@pytest.mark.parametrize(("before", "after"), [("null", "0.9"), ("0.9", "null")])
def test_an_average_can_begin_or_end_within_a_run(corpus, tmp_path, before, after):
    first = build_trainer(config_of(corpus, tmp_path, f"trainer.average={before}"))
    first._train_epoch()
    saving.save(first)
    meant = "trainer.accept_changes=[trainer.average]"
    second = build_trainer(config_of(corpus, tmp_path, f"trainer.average={after}", meant))
    saving.resume(second, second.start)
    assert_equal_tensors(second.model.encoder.state_dict(), first.model.encoder.state_dict())
    second.train()
    steps_of_second = second.progress.step - first.progress.step
    assert second.progress.averaged_steps == (steps_of_second if after == "0.9" else 0)
    newest = checkpoint.find_latest(tmp_path / "checkpoints")
    assert (newest / "raw.safetensors").exists() == (after == "0.9")


@pytest.mark.parametrize("decay", [0, 1, -0.5])
def test_a_decay_that_is_no_average_is_refused(corpus, tmp_path, decay):
    with pytest.raises(ValueError, match=r"trainer\.average"):
        build_trainer(config_of(corpus, tmp_path, f"trainer.average={decay}"))
