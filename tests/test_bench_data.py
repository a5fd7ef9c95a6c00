"""bench/data.py measures the same recordings for all, counts padding rightly, and says what feeds what."""

import json
import sys
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from asrlib.data import read_audio, shards
from bench import batching, data
from tests.processes import PoolInThisProcess
from tests.test_bench_train import Answer
from tests.test_report import FIELDS, MEASURED


def called(target, *arguments):
    answer = Answer()
    target(*arguments, answer)
    return answer.found


def test_padding_and_repetition_are_those_of_a_count_by_hand():
    durations = np.array([1.0, 2.0, 4.0, 4.0])
    assert batching.padding([[0, 1], [2, 3]], durations) == pytest.approx(1 / 12)
    assert batching.padding([[0], [1], [2, 3]], durations) == 0
    assert batching.repeated([[0, 1, 2], [3]], [[2, 1], [0, 3]]) == pytest.approx(1 / 3)


def test_a_format_that_is_too_slow_is_called_so():
    row = {"format": "mp3", "audio_seconds_per_second": 2 * data.GPU_RATE / 5}
    assert "needs 5.00 cores of 4" in data.supply_line(row)
    assert data.supply_line(row).endswith("NOT enough")
    row |= {"audio_seconds_per_second": 2 * data.GPU_RATE / 4}
    assert data.supply_line(row).endswith(": enough")


def test_both_systems_batch_every_utterance_within_the_same_limit():
    pytest.importorskip("lhotse")
    durations = batching.drawn_durations(200)
    for batches in (batching.our_batches(durations)(0), batching.lhotse_batches(durations, 10)(0)):
        assert Counter(chain(*batches)) == Counter(range(200))
        assert all(len(b) * durations[b].max() <= batching.BATCH_SECONDS for b in batches)


def test_rows_hold_all_formats_of_the_same_recordings(
    librispeech_dir, monkeypatch, tmp_path, capsys
):
    out = tmp_path / "rows.json"
    for module in (data, batching):
        monkeypatch.setattr(module, "in_a_process", called)
    monkeypatch.setattr(shards, "ProcessPoolExecutor", PoolInThisProcess)
    monkeypatch.setattr(batching, "DRAWN", 50)
    monkeypatch.setattr(data, "BUCKETS", (2,))
    options = ["--data", str(librispeech_dir), "--rounds", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["bench/data.py", *options])
    data.main()
    rows = json.loads(out.read_text())
    formats = [row for row in rows if row["measured"] == "format"]
    assert [row["format"] for row in formats] == [*data.FORMATS, *data.SHARDS]
    total = sum(len(read_audio(p)) for p in librispeech_dir.rglob("*-7-*.*")) / 16_000
    for row in rows:
        assert MEASURED | FIELDS["bench-data"] <= row.keys()
    for row in formats:
        assert row["utterances"] == 8
        assert row["audio_seconds"] == pytest.approx(total)
    compared = [row for row in rows if row["measured"] != "format"]
    assert {row["system"] for row in compared} <= {"asrlib", "lhotse"}
    assert all(0 <= row["padding"] < 1 for row in compared)
    assert capsys.readouterr().out.count("T4") == 5
