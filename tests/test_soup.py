"""The mean of several runs' weights: their mean, and honest about what they cost."""

import json
import subprocess
import sys

import pytest
import torch

from asrlib import checkpoint
from asrlib.configs import compose
from asrlib.soup import soup
from asrlib.training import build_trainer, train
from tests.corpus import tiny_overrides


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory):
    """A run, and one that went on from it."""
    folder = tmp_path_factory.mktemp("runs")
    train(compose("train", *tiny_overrides(corpus, folder / "first")))
    later = (f"init_from={folder / 'first'}", "trainer.epochs=1", "model.dropout=0.3")
    train(compose("train", *tiny_overrides(corpus, folder / "second"), *later))
    train(compose("train", *tiny_overrides(corpus, folder / "other"), "seed=1"))
    for name in ("first", "second", "other"):  # all of them were made by this process's command
        path = folder / name / "checkpoints/best/state.json"
        state = json.loads(path.read_text()) | {"command": f"python train.py run_dir={name}"}
        state["earlier"] = ["python train.py run_dir=first"] * len(state["earlier"])
        path.write_text(json.dumps(state))
    return folder


def test_it_is_the_mean_and_can_be_gone_on_from(runs, corpus, tmp_path):
    path = soup(tmp_path / "mean", runs / "first", runs / "second")
    first, second, mean = (
        checkpoint.read_weights(checkpoint.find_checkpoint(run))
        for run in (runs / "first", runs / "second", tmp_path / "mean")
    )
    assert first.keys() == mean.keys()
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2)
    assert any(not torch.equal(mean[name], second[name]) for name in mean)
    assert checkpoint.find_damage(path) is None
    later = build_trainer(
        compose("train", *tiny_overrides(corpus, tmp_path / "on"), f"init_from={tmp_path / 'mean'}")
    )
    for name, tensor in later.model.encoder.state_dict().items():
        assert torch.equal(tensor, mean[name]), name


def test_what_the_runs_cost_is_counted_once_where_one_went_on_from_another(runs, tmp_path):
    state = {
        name: checkpoint.read_state(checkpoint.find_checkpoint(runs / name))
        for name in ("first", "second", "other")
    }
    chain = checkpoint.read_state(soup(tmp_path / "a", runs / "first", runs / "second"))
    assert chain["audio_seconds"] == state["second"]["audio_seconds"]
    apart = checkpoint.read_state(soup(tmp_path / "b", runs / "other", runs / "second"))
    both = state["second"]["train_seconds"] + state["other"]["train_seconds"]
    assert apart["train_seconds"] == pytest.approx(both)
    commands = [f"python train.py run_dir={name}" for name in ("other", "first", "second")]
    assert apart["earlier"] == commands


def test_what_holds_in_training_alone_may_differ(corpus, tmp_path):
    for name, dropout in (("a", 0.0), ("b", 0.1)):
        las = ["model=las", "loss=joint", f"model.listener.dropout={dropout}", "trainer.epochs=1"]
        train(compose("train", *tiny_overrides(corpus, tmp_path / name), *las))
    assert soup(tmp_path / "mean", tmp_path / "a", tmp_path / "b").exists()


def test_what_has_no_mean_is_refused(runs, corpus, tmp_path):
    with pytest.raises(ValueError, match="two or more"):
        soup(tmp_path / "x", runs / "first")
    with pytest.raises(FileExistsError, match="choose another"):
        soup(runs / "first", runs / "first", runs / "second")
    wide = compose("train", *tiny_overrides(corpus, tmp_path / "wide"), "model.size=xs")
    train(wide)
    with pytest.raises(ValueError, match="differ in their model"):
        soup(tmp_path / "x", runs / "first", tmp_path / "wide")
    pieces = ("text_encoder=bpe", "text_encoder.vocabulary_size=36")
    train(compose("train", *tiny_overrides(corpus, tmp_path / "bpe"), *pieces))
    with pytest.raises(ValueError, match="other labels"):
        soup(tmp_path / "x", runs / "first", tmp_path / "bpe")
    assert not (tmp_path / "x").exists()
    command = [
        sys.executable,
        "-m",
        "asrlib.soup",
        tmp_path / "x",
        runs / "first",
        tmp_path / "gone",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("soup: no checkpoint in")
