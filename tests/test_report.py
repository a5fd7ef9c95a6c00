"""What is published keeps to a schema, and the README repeats it without a number typed by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from asrlib.result import load_results, markdown_table, save_results
from report.augmentations import report
from report.faults import bad_days, stops
from report.story.evidence import RESULTS, kind, results_table
from tests.corpus import say

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT) for path in ROOT.glob("report/results/*.json"))
BENCHES = [path for path in FILES if path.name.startswith("bench-")]
FAULTS = Path("report/results/faults.json")
KINDS = ("models", "decoders", "ablations")
TABLES = {name: [path for path in FILES if kind(path) == name] for name in KINDS}
MEASURED = {"system", "seconds", "audio_seconds", "peak_mb", "commit", "command", "date"}
FIELDS = {  # of each row of a bench, beside those
    "bench-decode": {"decoder", "wer", "data", "threads"},
    "bench-train": {"audio_seconds_per_second", "device", "threads", "dropout", "longest_seconds"},
    "bench-ctc": {"audio_seconds_per_second", "device", "threads", "utterances", "labels", "text"},
    "bench-recognise": {"audio_seconds_per_second", "decoder", "wer", "data", "device", "threads"},
    "bench-data": {"audio_seconds_per_second", "device", "measured", "utterances"},
    "bench-gpu": {"check", "device", "torch"},
}


IN_README = [RESULTS / f"{name}.json" for name in ("an4-shipped-las", "an4-conformer", "shipped")]
WITH_ROWS = [path for paths in TABLES.values() for path in paths]


@pytest.mark.parametrize("path", WITH_ROWS, ids=lambda path: path.name)
def test_every_published_row_keeps_to_the_schema(path):
    for row in load_results(ROOT / path):
        assert not row.commit.endswith("+"), "from a working tree that no commit holds"
        assert row.wer_interval is None or row.wer_interval[0] <= row.wer <= row.wer_interval[1]


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.name)
def test_every_measurement_says_what_was_measured_and_how(path):
    for row in json.loads((ROOT / path).read_text()):
        assert MEASURED | FIELDS[path.stem] <= row.keys()
        assert not row["commit"].endswith("+"), "from a working tree that no commit holds"


def test_the_readme_shows_the_rows_of_the_shipped_model_and_of_the_best_on_an4(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert markdown_table(IN_README) in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TABLES)
def test_the_report_shows_all_published_rows(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "report/report.md").read_text(encoding="utf-8")

    def rows(table):  # without the file's name: a row that stands in several has that of one
        return {line.rpartition(" | [")[0] for line in table.splitlines()}

    assert rows(results_table(name)) <= rows(page)


def test_every_fault_was_injected_and_what_was_promised_was_kept():
    rows = json.loads((ROOT / FAULTS).read_text())
    assert [row["fault"] for row in rows] == [*stops.FAULTS, *bad_days.FAULTS]
    for row in rows:
        assert row["held"] is True, row["fault"]
        assert row["injected"] and row["kept"] and row["seen"]
        assert row["command"] == "make faults"
        assert not row["commit"].endswith("+"), "from a working tree that no commit holds"
    assert rows[0]["seen"]["kills"] >= 20


def test_rows_of_several_seeds_are_one_line_with_their_mean_and_range(tmp_path):
    (row, *_) = load_results(ROOT / TABLES["models"][0])
    other = replace(row, seed=7, wer=0.0, substitutions=0, deletions=0, insertions=0)
    save_results(tmp_path / "rows.json", [row, other, replace(row, name="another")])
    both, one = markdown_table([tmp_path / "rows.json"]).splitlines()[2:]  # by WER
    assert f"**{row.wer / 2:.1f}** (2 seeds: 0.0–{row.wer:.1f})" in both
    assert " another " in one and " seeds: " not in one


def test_each_augmentation_gets_a_small_picture_and_those_of_the_waveform_a_sound(tmp_path):
    waveform = ["speed", "gain", "noise"]
    costs = report(say("abc"), tmp_path, "augmentations=default")
    assert [*costs] == [*waveform, "spec_augment"]
    assert all(cost >= 0 for cost in costs.values())
    pictures, sounds = ({p.stem for p in tmp_path.glob(f"*.{s}")} for s in ("png", "flac"))
    assert (pictures, sounds) == ({*waveform, "spec_augment"}, {*waveform, "before"})
    assert all(path.stat().st_size < 80_000 for path in tmp_path.glob("*.png"))
