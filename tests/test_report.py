"""What is published keeps to a schema, and the README repeats it without a number typed by hand."""

import json
from pathlib import Path

import pytest

from asrlib.result import load_results, markdown_table
from report.faults import bad_days, stops

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT) for path in ROOT.glob("report/results/*.json"))
BENCHES = [path for path in FILES if path.name.startswith("bench-")]
DECODERS = [path for path in FILES if path.name.endswith("-decoders.json")]
FAULTS = Path("report/results/faults.json")
MODELS = [path for path in FILES if path not in [FAULTS, *BENCHES, *DECODERS]]
MEASURED = {"system", "seconds", "audio_seconds", "peak_mb", "commit", "command", "date"}
FIELDS = {  # of each row of a bench, beside those
    "bench-decode": {"decoder", "wer", "data", "threads"},
    "bench-train": {"audio_seconds_per_second", "device", "threads", "dropout", "longest_seconds"},
    "bench-data": {"audio_seconds_per_second", "device", "measured", "utterances"},
    "bench-gpu": {"check", "device", "torch"},
}


@pytest.mark.parametrize("path", MODELS + DECODERS, ids=lambda path: path.name)
def test_every_published_row_keeps_to_the_schema(path):
    for row in load_results(ROOT / path):
        assert not row.commit.endswith("+"), "from a working tree that no commit holds"
        assert row.wer_interval is None or row.wer_interval[0] <= row.wer <= row.wer_interval[1]


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.name)
def test_every_measurement_says_what_was_measured_and_how(path):
    for row in json.loads((ROOT / path).read_text()):
        assert MEASURED | FIELDS[path.stem] <= row.keys()
        assert not row["commit"].endswith("+"), "from a working tree that no commit holds"


@pytest.mark.parametrize("paths", [MODELS, DECODERS], ids=["models", "decoders"])
def test_the_readme_shows_the_published_rows(paths, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert markdown_table(paths) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_fault_was_injected_and_what_was_promised_was_kept():
    rows = json.loads((ROOT / FAULTS).read_text())
    assert [row["fault"] for row in rows] == [*stops.FAULTS, *bad_days.FAULTS]
    for row in rows:
        assert row["held"] is True, row["fault"]
        assert row["injected"] and row["kept"] and row["seen"]
        assert row["command"] == "make faults"
        assert not row["commit"].endswith("+"), "from a working tree that no commit holds"
    assert rows[0]["seen"]["kills"] >= 20
