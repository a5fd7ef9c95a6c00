"""The report says what the committed files hold, all of it and nothing else."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile

from asrlib.data import SAMPLE_RATE
from asrlib.files import write_jsonl
from asrlib.result import load_results, save_results
from report import build, errors, story
from report.story import costs, evidence, figures
from report.story.show import joined

ROOT = Path(__file__).parents[1]
COSTLY = "budget"  # it counts the FLOP of three models; test_experiments has it


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The working directory has a copy of what the report reads, to change."""
    for name in (
        "results",
        "logs",
        "comparisons",
        "errors",
        "corpora.json",
        "figures/augmentations",
    ):
        source, target = ROOT / "report" / name, tmp_path / "report" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    for name in ("asrlib", "language_models"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "report"


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch):
    monkeypatch.setattr(figures, "saved", lambda figure, name, alt: story.Picture(Path(name), alt))


def texts(section: str) -> str:
    return joined(part for part in getattr(story, section)() if isinstance(part, str))


def committed(name: str = "report.md") -> str:
    return (ROOT / "report" / name).read_text(encoding="utf-8")


SECTIONS = [name for name in story.__all__ if name not in ("Picture", COSTLY)]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_has_what_the_files_say_today(section, at_root):
    missing = [line for line in texts(section).splitlines() if line not in committed()]
    assert not missing, "run make report"


def test_the_page_has_the_budget(monkeypatch):
    monkeypatch.setattr(costs.budgets, "table", lambda: "")
    assert texts(COSTLY) in committed()


def test_the_pages_are_those_of_the_notebook_which_calls_every_section(at_root):
    notebook = nbformat.read("report/report.ipynb", as_version=4)
    text = build.markdown(notebook)
    assert build.with_contents(text) == committed()
    assert build.page(text) == committed("report.html")
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    called = re.findall(r"show\(story\.(\w+)\(\)\)", code)
    assert sorted(called) == sorted([*SECTIONS, COSTLY])


def test_the_tables_of_the_page_have_no_line_that_the_files_no_longer_say(at_root, monkeypatch):
    monkeypatch.setattr(costs.budgets, "table", lambda: "")
    said = {line for name in [*SECTIONS, COSTLY] for line in texts(name).splitlines()}
    rows = [line for line in committed().splitlines() if line.startswith("|")]
    assert len(rows) > 100
    left = [line for line in rows if line not in said and "librispeech_" not in line]
    assert [
        line for line in left if not line.startswith(("| experiment | parameters", "|---"))
    ] == []


def test_every_link_and_picture_of_the_page_is_there(at_root):
    targets = re.findall(r"\]\(([^)#]+)\)", committed())
    assert len(targets) > 50
    assert [target for target in targets if not (ROOT / "report" / target).exists()] == []


@pytest.mark.parametrize("name", ["report.md", "report.html", "report.ipynb"])
def test_the_page_names_no_place_of_this_machine_and_nothing_undone(name):
    text = committed(name)
    words = re.sub(r'"image/png": "[^"]*"', "", text)  # letters of a picture say nothing
    assert not re.search(r"(?<![\w.:/)])/(home|root|tmp|work|usr|mnt)/|TODO", words)
    assert len(text) < 5_000_000
    if name == "report.html":
        assert not re.search(r'(src|href)="(https?:)?//', text), "it needs nothing from the network"


def test_every_published_row_is_on_the_page(at_root):
    found = evidence.rows("models", "decoders")
    assert found
    for row in found:
        assert (
            f"{row.system} {row.name} | {row.train_data} | {row.test_data} | {row.decoder} |"
            in committed()
        )


def test_the_commands_are_those_of_the_rows_but_for_the_place_of_the_data(at_root):
    for row in evidence.rows("models", "decoders", "ablations"):
        lines = "\n".join(evidence.commands(row.command)).replace("\\\n", "")  # as a shell does
        shown = shlex.split(lines)
        told = [word for word in shlex.split(row.command) if word != "&&"]
        places = [
            word for word in told if word.startswith(("datasets.root=", "datasets.noise_dir="))
        ]
        kept = [w for w in shown if not w.startswith(("datasets.root=", "datasets.noise_dir="))]
        assert kept == [w for w in told if w not in places]
        assert {w for w in shown if "noise_dir=" in w} <= {"datasets.noise_dir=data/noise"}
        all_corpora = {"datasets.root=data"}.intersection(places)
        assert {w for w in shown if "root=" in w} <= all_corpora | {
            f"datasets.root=data/{name}"
            for place in places
            for name in (Path(place.partition("=")[2]).name, evidence.corpus(row))
        }


def test_commands_name_what_there_is_today_where_a_row_named_what_has_changed(at_root):
    told = texts("reproduce")
    assert "outputs/mini-ctc-gpu" not in told and "data/lm3.arpa.gz" not in told
    parts = dict(re.findall(r"^### (\S+)\n(.*?)(?=^### |\Z)", told, re.MULTILINE | re.DOTALL))
    for name in ("flagship-ctc", "flagship-longer", "flagship-longest", "flagship-phones"):
        words = shlex.split("".join(re.findall(r"```bash\n(.*?)```", parts[name], re.DOTALL)))
        assert not [w for w in words if w.rpartition("=")[2] == "checkpoints/shipped"], name
        assert f"inferencer.from_pretrained=outputs/{name}" in words
    assert "run_dir=outputs/shipped-joint-2" in parts["shipped-joint-2"]


def test_without_its_file_a_section_is_left_out(copy):
    sections = {
        "speed": "bench-train",
        "loading": "bench-data",
        "decoder_speed": "bench-decode",
        "recognition": "bench-recognise",
        "faults": "faults",
    }
    for section, name in sections.items():
        assert texts(section)
        (copy / "results" / f"{name}.json").unlink()
        assert texts(section) == ""
    shutil.rmtree(copy / "comparisons")
    assert texts("pairs") == ""
    assert texts("attention")
    (copy / "results/attention.json").unlink()
    assert texts("attention") == ""
    (copy / "corpora.json").unlink()
    assert "known sentences" not in texts("headline")
    assert "word for word" not in texts("limits")


def test_a_new_file_of_results_appears_and_takes_a_limit_away(copy):
    row = load_results(copy / "results" / "an4-deepspeech2.json")[0]
    assert "test-clean or test-other" in texts("limits")
    save_results(
        copy / "results" / "some.json",
        [replace(row, name="some-model", test_data="librispeech test-other")],
    )
    assert "asrlib some-model" in texts("headline")
    assert "librispeech test-other" in texts("headline")
    assert "test-clean or test-other" not in texts("limits")


def test_rows_of_other_programs_and_of_a_shipped_checkpoint_do_not_stop_the_report(copy):
    row = load_results(copy / "results" / "an4-deepspeech2.json")[0]
    whole = (
        "python -m report.long_form checkpoints/shipped report/results/shipped.json decoder=tuned"
    )
    shipped = "inference.py inferencer.from_pretrained=checkpoints/shipped decoder=tuned datasets=librispeech"
    rows = [
        replace(
            row, name="shipped", test_data="x val, joined", command=f"python train.py && {whole}"
        ),
        replace(
            row, name="shipped", decoder="joint", command=f"python train.py && python {shipped}"
        ),
        replace(row, system="peer", name="peer", command="peer a b", train_hours=None, seed=None),
        replace(
            row, name="renamed", command="python train.py experiment=no_such", wer_interval=None
        ),
    ]
    save_results(copy / "results" / "shipped.json", rows)
    save_results(
        copy / "results" / "shipped-decoders.json", [replace(rows[1], decoder="attention")]
    )
    for section in ("headline", "recipes", "reproduce", "labels", "decoders", "errors", "limits"):
        assert texts(section)
    assert whole in texts("reproduce") and "peer a b" in texts("reproduce")
    assert "add `run_dir=checkpoints" not in texts("reproduce")
    assert "no_such" not in texts("recipes")


def test_hypotheses_and_attention_appear_when_they_are_committed(copy):
    row = {"utterance_id": "a-b", "speaker": "s", "target": "one two", "predict": "one too"}
    soundfile.write(copy / "a.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    write_jsonl(copy / "table.jsonl", [row | {"audio_path": str(copy / "a.wav")}])
    errors.main(str(copy / "table.jsonl"), "an4-some-greedy")
    (copy / "figures" / "attention").mkdir(exist_ok=True)
    (copy / "figures" / "attention" / "a.png").touch()
    assert "### an4-some-greedy" in texts("errors")
    assert "| two | too | 1 |" in texts("errors")
    assert "| up to 2 | 1 | 2 | 50.0 |" in texts("errors")
    assert [p.path.name for p in story.attention() if isinstance(p, story.Picture)] == ["a.png"]


def test_a_contrast_pairs_seeds_and_doubts_what_few_of_them_say(copy):
    row = load_results(copy / "results" / "an4-deepspeech2.json")[0]

    def seeds(*wers: float):
        made = []
        for seed, edits in enumerate(wers):
            counts = {"substitutions": edits, "deletions": 0, "insertions": 0}
            made.append(
                replace(row, seed=seed, wer=100 * edits / row.words, wer_interval=None, **counts)
            )
        return made

    one = evidence.contrast(seeds(10), seeds(20, 30))
    assert len(one.differences) == 1 and one.interval is None
    assert one.verdict == "higher here; one seed, not tested"
    assert evidence.contrast(seeds(10), []) is None
    clear = evidence.contrast(seeds(50, 60, 70), seeds(30, 41, 49))
    assert clear.verdict == "lower" and clear.interval[0] < clear.mean < clear.interval[1] < 0
    unclear = evidence.contrast(seeds(50, 60, 70), seeds(49, 60, 50))
    assert unclear.verdict == "no difference seen (lower with 2, higher with 0 of 3 seeds)"
    # by the formula: mean ± t · s / √n, with t = 4.30 for two degrees of freedom
    assert unclear.interval[1] - unclear.mean == pytest.approx(
        4.30 * 100 / row.words * 11.269 / 3**0.5, rel=1e-3
    )


def test_a_table_needs_rows_and_keeps_its_columns():
    assert evidence.table([{"#n": 1, "text": "a|b"}]) == "| n | text |\n|---:|---|\n| 1 | a\\|b |"
    with pytest.raises(ValueError, match="without rows"):
        evidence.table([])


def test_a_smoothed_curve_keeps_its_first_point_and_its_mean():
    rows = [{"step": step, "loss_train": 1.0 * (step % 2)} for step in range(1, 1202)]
    curve = figures.smoothed(figures.points(rows, "loss_train"))
    assert curve[0].tolist() == [1, 1] and len(curve) == figures.POINTS + 1
    assert curve[1:, 1].tolist() == [0.5] * figures.POINTS


def test_the_page_of_html_scrolls_its_tables_and_lists_its_parts(at_root):
    page = build.page("# A\n\n## 1. B & c\n\n| x |\n|---|\n| 1 |\n\n![y](y.png)\n")
    assert '<div class="scroll"><table>' in page and "</table></div>" in page
    assert '<li><a href="#1-b--c">B &amp; c</a></li>' in page
    assert '<h2 id="1-b--c">' in page and "<title>A</title>" in page


def test_the_parts_are_named_before_the_first(at_root):
    text = "# A\n\nWhat it is.\n\n## 1. B & c\n\nSo.\n\n## Appendix: d\n\nAnd so.\n"
    found = build.with_contents(text)
    assert "\n\n[1. B & c](#1-b--c) · [Appendix: d](#appendix-d)\n\n## 1. B" in found
    assert build.page(text).count("<nav") == 1


def test_a_link_shows_a_name_as_it_is_written():
    written = "asrlib/augmentations/__init__.py"
    assert f">{written}</a>" in build.page(f"# A\n\n{evidence.link(written, written)}\n")


def test_facts_about_data_count_what_is_shared_with_train():
    from asrlib.data import Utterance
    from report.corpora import describe

    train = [
        Utterance("a", "a.opus", "one two", 1.0, "s"),
        Utterance("b", "b.opus", "three", 2.0, "t"),
    ]
    test = [Utterance("c", "c.FLAC", "three", 1.5, "u"), Utterance("d", "d.flac", "four", 0.5, "s")]
    row = describe("x test", test, train)
    assert (row["sentences_of_train"], row["speakers_of_train"], row["speakers"]) == (1, 1, 2)
    assert (row["words"], row["seconds"], row["files"]) == (2, 2.0, {"flac": 2})
    assert json.loads(committed("corpora.json"))


def test_the_utterances_of_each_corpus_are_listed():
    from asrlib.data import Utterance
    from report.corpora import lists

    ids = ["ljspeech/b", "ljspeech/a", "an4/c"]
    found = lists("x-train", [Utterance(id, f"{id}.wav", "one", 1.0, "s") for id in ids])
    assert found == {"x-train-ljspeech.txt": "a\nb\n", "x-train-an4.txt": "c\n"}
    for row in json.loads(committed("corpora.json")):
        files = (evidence.REPORT / "utterances").glob(f"{row['data'].replace(' ', '-')}*.txt")
        assert sum(len(path.read_text().splitlines()) for path in files) == row["utterances"]


def test_links_to_sounds_are_players(at_root):
    page = build.page("# A\n\nTo hear: [before](x.flac), [speed](y.flac), [a table](z.md)\n")
    assert re.findall(r'<audio controls preload="none" src="([^"]*)"', page) == ["x.flac", "y.flac"]
    assert re.findall(r'<a href="([^#"]*)"', page) == ["z.md"]
