"""bench/train.py gives both systems the same work, and its rows say what was measured."""

import json
import sys

import pytest
import torch

from bench import train
from tests.test_report import FIELDS, MEASURED

LONGEST = 2  # seconds: 20 utterances in a batch


class Answer:
    """Stands for the end of a pipe."""

    def send(self, found):
        self.found = found


@pytest.fixture
def in_this_process(monkeypatch):
    def called(target, *arguments):
        answer = Answer()
        target(*arguments, answer)
        return answer.found

    monkeypatch.setattr(train, "in_a_process", called)


def matrix_products(model):
    """Multiplications a frame in linear layers and in convolutions over one frame."""
    products = [p for p in model.parameters() if p.ndim == 2 or p.shape[2:] == (1,)]
    return sum(p.numel() for p in products)


def test_both_systems_are_as_wide_and_deep_and_see_the_same_frames():
    counts, inputs = {}, {}
    for system in train.SYSTEMS:
        model, forward, x, lengths = train.make_model(system, "xxs", 0.0, LONGEST)
        assert forward().shape == x.shape == (20, 50, 48)
        counts[system], inputs[system] = matrix_products(model), (x, lengths)
    for ours, theirs in zip(*inputs.values(), strict=True):
        assert torch.equal(ours, theirs)
    assert counts["asrlib"] == counts["torchaudio"]


def test_rows_hold_both_systems_with_and_without_dropout(in_this_process, monkeypatch, tmp_path):
    out = tmp_path / "rows.json"
    options = ["--size", "xxs", "--seconds", "2", "--rounds", "3", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["bench/train.py", *options])
    train.main()
    rows = json.loads(out.read_text())
    assert [(row["dropout"], row["system"]) for row in rows] == [
        (rate, system) for rate in train.DROPOUT for system in train.SYSTEMS
    ]
    for row in rows:
        assert MEASURED | FIELDS["bench-train"] <= row.keys()
        assert row["audio_seconds"] == pytest.approx(20 * 0.95 * LONGEST, rel=0.02)
        rate = row["audio_seconds"] / row["seconds"]
        assert row["audio_seconds_per_second"] == pytest.approx(rate)
        assert row["peak_mb"] >= row["idle_mb"] > 0
        assert (row["system"] == "asrlib") == ("ratio_to_torchaudio" in row)


def test_the_ratio_is_theirs_over_ours(in_this_process, monkeypatch):
    def timed(case, rounds, answer):
        answer.send(({"asrlib": [2.0, 2.0, 4.0], "torchaudio": [3.0, 4.0, 4.0]}, 10.0))

    monkeypatch.setattr(train, "time_both", timed)
    monkeypatch.setattr(train, "weigh", lambda case, system, answer: answer.send((2.0, 1.0)))
    ours, theirs = train.measure({"dropout": 0.0}, rounds=3)
    assert (ours["audio_seconds_per_second"], theirs["audio_seconds_per_second"]) == (5.0, 2.5)
    assert ours["ratio_to_torchaudio"] == 1.5
