"""What is published keeps to the schema, and the README repeats it without a number typed by hand."""

from pathlib import Path

import pytest

from asrlib.result import load_results, markdown_table

ROOT = Path(__file__).parents[1]
ROWS = sorted(ROOT.glob("report/results/*.json"))


@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.name)
def test_every_published_row_keeps_to_the_schema(path):
    for row in load_results(path):
        assert not row.commit.endswith("+"), "from a working tree that no commit holds"
        assert row.wer_interval is None or row.wer_interval[0] <= row.wer <= row.wer_interval[1]


def test_the_readme_shows_the_published_rows():
    table = markdown_table([path.relative_to(ROOT) for path in ROWS])
    assert table in (ROOT / "README.md").read_text(encoding="utf-8")
