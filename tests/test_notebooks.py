"""Notebooks: what a session's end cuts short goes on in the next, and nothing is done twice."""

import inspect
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import papermill
import pytest

from asrlib import notebook
from asrlib.configs import compose
from asrlib.download import dataset
from asrlib.download.dataset import fetch_dataset
from asrlib.download.errors import DownloadError
from asrlib.launch import launch
from asrlib.machine import survey
from asrlib.metrics import ErrorRate
from asrlib.metrics.analysis import (
    by_familiarity,
    by_length,
    by_letters,
    by_rate,
    by_speaker,
    confusions,
)
from asrlib.metrics.points import points
from asrlib.result import load_results, save_results
from asrlib.text import BPETextEncoder, CTCTextEncoder
from asrlib.training.stopping import STATUS
from notebooks import run_stages
from notebooks.run_stages import (
    NOTEBOOKS,
    ProfileError,
    load_profile,
    parameters_cell,
    parameters_of,
)
from tests.corpus import write_custom_dir

ALL = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
PROFILES = sorted(path.stem for path in (NOTEBOOKS / "profiles").glob("*.yaml"))


@pytest.fixture(autouse=True)
def no_end_of_time():
    """The time that one test gives the notebooks is not another's."""
    yield
    notebook.begin()


@pytest.mark.parametrize("name", ALL)
def test_a_notebook_has_one_parameters_cell_and_no_outputs(name):
    cells = nbformat.read(NOTEBOOKS / name, as_version=4).cells
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    assert parameters_of(NOTEBOOKS / name)
    for cell in cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert len(cell.source.splitlines()) <= 20, "logic belongs into the library"


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_names_notebooks_parameters_and_experiments_that_are_there(name, tmp_path):
    profile = load_profile(name, tmp_path, [])
    for stage in profile.stages:
        experiment = stage.get("parameters", {}).get("experiment")
        if experiment is not None:
            assert compose("train", f"experiment={experiment}").name


def test_the_labels_that_the_ablation_compares_have_no_option_of_each_other():
    exec(parameters_cell(NOTEBOOKS / "5_ablation_bpe.ipynb"), chosen := {})
    for options in chosen["labels"].values():
        overrides = f"experiment={chosen['experiment']}", *chosen["data"], *options
        section = compose("train", *overrides).text_encoder
        encoder = {"char": CTCTextEncoder, "bpe": BPETextEncoder}[section.kind]
        assert {*section} - {"kind"} <= inspect.signature(encoder.train).parameters.keys()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["stages.1.parameters.modle=mlp"], "no parameters .*modle"),
        (["stages.1.notebook=9_magic"], "no notebook .*1_one_batch"),
        (["hous=1"], "unknown keys .*hous"),
        (["hours"], "KEY=VALUE"),
        (["stages.1.name=2_train"], "two stages"),
        (["stages.9.name=x"], "stages.9.name=x"),
        (["stages.one.name=x"], "stages.one.name=x"),
        (["stages=null"], "stages is no list"),
        (["hours=[1"], r"hours=\[1"),
        (["hours=abc"], "abc is no number"),
        (["links.data/x=/no/such/folder"], "no such folder"),
    ],
)
def test_a_mistake_in_a_profile_is_named_before_anything_runs(changes, told, tmp_path, capsys):
    assert run_stages.main(["demo", str(tmp_path / "out"), *changes]) == 1
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_an_unknown_profile_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ProfileError, match="demo"):
        load_profile("kagle", tmp_path, [])


def write_notebook(path, *cells):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nb.cells[0].metadata.tags = ["parameters"]
    nb.metadata.language_info = {"name": "python"}
    nbformat.write(nb, path)


@pytest.fixture
def counting(tmp_path, monkeypatch):
    """A profile of two stages that note each of their runs; the second stops unless there is time."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    note = f"open({str(tmp_path / 'runs')!r}, 'a').write(out.rsplit('/')[-1] + ' ')"
    write_notebook(folder / "a.ipynb", "out = ''\nvalue = 1  # not x=1", note)
    stop = "if hours:\n    raise type('Stopped', (Exception,), {})('no time')"
    write_notebook(folder / "b.ipynb", "out = ''\nhours = None", note, stop)
    profile = tmp_path / "two.yaml"
    profile.write_text("hours: null\nstages: [{notebook: a}, {notebook: b}]\n")
    monkeypatch.setattr(run_stages, "NOTEBOOKS", folder)
    return profile, tmp_path / "runs"


@pytest.mark.slow
def test_stages_go_on_after_a_stop_and_finished_ones_are_not_repeated(counting, tmp_path, capsys):
    profile, runs = counting
    out, next_out = tmp_path / "out", tmp_path / "next"
    assert run_stages.main([str(profile), str(out), "hours=5"]) == STATUS
    assert runs.read_text() == "a b "
    for path in out.rglob("*"):  # as an input on Kaggle
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    try:
        again = [str(profile), str(next_out), "--previous", str(out)]
        assert run_stages.main(again) == 0
    finally:
        for path in [out, *out.rglob("*")]:
            path.chmod(stat.S_IRWXU)
    assert runs.read_text() == "a b b "
    assert sorted(path.name for path in (next_out / "b").iterdir()) == [
        "executed-1.ipynb",
        "executed-2.ipynb",
        "finished.json",
    ]
    assert run_stages.main(again) == 0
    assert runs.read_text() == "a b b ", "all were finished"
    capsys.readouterr()
    assert run_stages.main([*again, "stages.0.parameters.value=2"]) == 1
    assert "other parameters (value)" in capsys.readouterr().err


def test_a_wrong_previous_is_refused_before_anything_is_trained(counting, tmp_path, capsys):
    profile, runs = counting
    (tmp_path / "earlier" / "stages" / "a").mkdir(parents=True)
    for wrong in ("earlier", "nowhere"):
        again = [str(profile), str(tmp_path / "out"), "--previous", str(tmp_path / wrong)]
        assert run_stages.main(again) == 1
        assert "--previous" in capsys.readouterr().err
    assert not runs.exists() and not (tmp_path / "out").exists()


def test_links_that_lead_nowhere_are_not_taken_over(tmp_path, capsys):
    earlier, out = tmp_path / "earlier", tmp_path / "out"
    (earlier / "a" / "wandb").mkdir(parents=True)
    (earlier / "a" / "weights").write_text("w")
    (earlier / "a" / "wandb" / "debug.log").symlink_to(tmp_path / "gone")
    run_stages.take_over(earlier, out, {"a"})
    assert [path.name for path in out.rglob("*") if not path.is_dir()] == ["weights"]
    run_stages.take_over(earlier, out, {"a"})
    assert capsys.readouterr().out.splitlines() == [
        "a: taken over",
        "a: in OUT already, not taken over",
    ]


def test_what_was_read_only_can_be_trained_on(tmp_path):
    (tmp_path / "earlier" / "a" / "logs").mkdir(parents=True)
    for folder in (tmp_path / "earlier" / "a" / "logs", tmp_path / "earlier" / "a"):
        folder.chmod(0o555)
    run_stages.take_over(tmp_path / "earlier", tmp_path / "out", {"a"})
    for folder in (tmp_path / "out" / "a", tmp_path / "out" / "a" / "logs"):
        assert folder.stat().st_mode & 0o200


def test_an_input_is_found_wherever_kaggle_mounts_it(tmp_path):
    def find(**options):
        return notebook.find_input("previous", "*/executed-1.ipynb", inputs=tmp_path, **options)

    with pytest.raises(FileNotFoundError, match="previous: no folder"):
        find()
    assert find(needed=False) is None
    first = tmp_path / "notebooks" / "me" / "asrlib" / "stages"
    (first / "stage-one").mkdir(parents=True)
    (first / "stage-one" / "executed-1.ipynb").touch()
    assert find() == str(first)
    shutil.copytree(first, tmp_path / "notebooks" / "me" / "other" / "stages")
    with pytest.raises(ValueError, match=r"which of .*asrlib/stages, .*other/stages"):
        find()


def test_without_time_nothing_is_started_and_the_notebook_stops():
    notebook.begin(hours=0)
    with pytest.raises(notebook.Stopped):
        notebook.run("-c", "raise SystemExit(1)")


def test_a_command_that_fails_is_an_error_and_one_that_stopped_early_is_none(capfd):
    with pytest.raises(RuntimeError, match="status 3"):
        notebook.run("-c", "print('the reason'); raise SystemExit(3)")
    assert "the reason" in capfd.readouterr().out
    with pytest.raises(notebook.Stopped):
        notebook.run("-c", f"raise SystemExit({STATUS})")


def test_a_command_that_does_not_know_the_time_is_stopped_when_it_is_up():
    notebook.begin(hours=1 / 3600)
    with pytest.raises(notebook.Stopped):
        notebook.run("-c", "import signal; signal.pause()")


@pytest.mark.slow
def test_a_tuning_that_is_stopped_leaves_no_process_that_holds_its_output(tmp_path):
    """Those that were spawned would wait for points, and whoever reads their output for its end."""
    program = tmp_path / "program.py"
    program.write_text(TUNING)
    process = subprocess.Popen(
        [sys.executable, program],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(NOTEBOOKS.parent)},
    )
    assert process.stdout.readline() == "scoring\n"
    process.terminate()
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 130


# what asrlib.decoding.tune does as a program, with a scorer that takes for ever
TUNING = """
import time
from asrlib.decoding import grid, tune
from asrlib.decoding.grid import Point

def forever(point):
    time.sleep(600)

def main():
    with grid.scoring(forever, processes=2) as score:
        points = score([Point(0.0, 0.0, 1)] * 2)
        print("scoring", flush=True)
        list(points)

if __name__ == "__main__":
    tune.as_program(main)
"""


def test_a_training_gets_the_time_that_is_left_unless_it_is_told_to_take_less(
    tmp_path, monkeypatch
):
    commands = []
    monkeypatch.setattr(notebook.commands, "run", lambda *command, **_: commands.append(command))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "metrics.jsonl").write_text('{"step": 1, "WER_val": 7.0}\n{"step": 2}\n')
    notebook.begin(hours=2)
    last = notebook.train(tmp_path, "experiment=demo", "trainer.max_hours=1", processes=2)
    assert last == {"step": 1, "WER_val": 7.0}
    launcher, options = commands[0][:5], commands[0][5:]
    assert launcher == ("-m", "asrlib.launch", "2", "train.py", "-cn=train")
    limits = [option for option in options if option.startswith("trainer.max_hours=")]
    assert limits == ["trainer.max_hours=1"]
    for more in (["trainer.max_hours=3"], ["trainer.max_hours=null"], []):
        notebook.train(tmp_path, *more, processes=1)
        (limit,) = (o for o in commands[-1] if o.startswith("trainer.max_hours="))
        assert 1.9 < float(limit.split("=")[1]) <= 2


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (3, 3), (STATUS, STATUS)])
def test_several_processes_end_with_the_status_of_the_first_that_failed(status, expected, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import os, sys; sys.exit({status} if os.environ['RANK'] == '1' else 0)")
    assert launch(2, str(script)) == expected


def test_several_processes_are_told_to_stop_and_can_save(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib, signal, sys\n"
        "mine = pathlib.Path(sys.argv[1], os.environ['RANK'])\n"
        "def save(*_):\n"
        "    mine.with_suffix('.saved').touch()\n"
        f"    os._exit({STATUS})\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "mine.touch()\n"
        "signal.pause()\n"
    )
    command = [sys.executable, "-m", "asrlib.launch", "2", str(script), str(tmp_path)]
    process = subprocess.Popen(command, cwd=NOTEBOOKS.parent)
    while len(list(tmp_path.glob("[01]"))) < 2 and process.poll() is None:
        pass
    process.terminate()
    assert process.wait() == STATUS
    assert len(list(tmp_path.glob("*.saved"))) == 2


def test_this_machine_is_described_and_offered_what_it_can_do(tmp_path):
    machine = survey(tmp_path / "not yet there")
    assert machine.cores >= 1 and machine.free > 0 and machine.writable
    assert machine.precision in ("fp32", "bf16", "fp16") and machine.processes >= 1
    assert machine.batch_seconds(compose("train", "model=mlp")) > 0
    assert all(what and found for what, found in machine.rows())


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({"clean_wer": 40.1, "clean_cer": 50.1}, 0),
        ({"clean_cer": 20.1}, 3),
        ({"clean_wer": 20, "clean_cer": 19}, 7),
        ({"clean_wer": 20, "other_wer": 30.1}, 7),
        ({"other_wer": 30}, 8),
        ({"other_wer": 10}, 10),
        ({"other_wer": 25, "attention": True}, 11.5),
        ({"other_wer": 60, "attention": True}, 0),
    ],
)
def test_points_are_those_of_the_assignment(measured, expected):
    assert points(**measured) == expected


def test_errors_are_counted_by_length_by_rate_by_speaker_and_by_word():
    errors = ErrorRate()
    errors.add("a cat", "a hat", "1", speaker="ann")
    errors.add("the cat sat on the mat", "the hat sat on mat", "2", speaker="bob")
    errors.add("go", "go", "3", speaker="bob")
    assert [tuple(r.values()) for r in by_length(errors)] == [
        ("0–5", 2, 3, pytest.approx(100 / 3)),
        ("6–10", 1, 6, pytest.approx(100 / 3)),
    ]
    assert [tuple(r.values()) for r in by_rate(errors, {"1": 1.0, "2": 1.5, "3": 0.5})] == [
        ("up to 2", 2, 3, pytest.approx(100 / 3)),
        ("more than 3.5", 1, 6, pytest.approx(100 / 3)),
    ]
    assert [(r["speaker"], round(r["WER"], 1)) for r in by_speaker(errors)] == [
        ("ann", 50.0),
        ("bob", 28.6),
    ]
    assert [tuple(r.values()) for r in confusions(errors)] == [("cat", "hat", 2), ("the", "", 1)]
    errors.add("cat", "dogs", "4")
    assert [tuple(r.values()) for r in by_letters(errors)] == [
        ("1", 2, pytest.approx(200 / 3)),
        ("3 and more", 1, pytest.approx(100 / 3)),
    ]
    known = ["the cat " * 9, "the a", "mat " * 100]  # of "a cat the cat sat on the mat go cat"
    assert [tuple(r.values()) for r in by_familiarity(errors, known)] == [
        ("0", 3, 0.0),
        ("1–9", 4, 75.0),
        ("10–99", 2, 50.0),
        ("100 and more", 1, 0.0),
    ]


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_a_dataset_is_unpacked_once_and_found_wherever_it_lies_in_the_archive(kind, tmp_path):
    write_custom_dir(tmp_path / "top" / "my data", 2, "x")
    archive = shutil.make_archive(str(tmp_path / "data"), kind, tmp_path / "top")
    found = fetch_dataset(archive, tmp_path / "data")
    assert len(list((found / "audio").iterdir())) == 2
    os.remove(archive)
    assert fetch_dataset(archive, tmp_path / "data") == found
    assert fetch_dataset(str(tmp_path / "top"), tmp_path / "other").name == "my data"


def test_another_link_is_another_dataset_and_no_name_in_it_is_lost(tmp_path):
    for name, id in (("one", "a"), ("other", "hm..b")):
        folder = tmp_path / name / "x" / "audio"
        folder.mkdir(parents=True)
        (folder / f"{id}.wav").touch()
        shutil.make_archive(str(tmp_path / name), "zip", tmp_path / name / "x")
    for name, id in (("one", "a"), ("other", "hm..b"), ("one", "a")):
        found = fetch_dataset(str(tmp_path / f"{name}.zip"), tmp_path / "out")
        assert [p.name for p in (found / "audio").iterdir()] == [f"{id}.wav"]
    with pytest.raises(DownloadError, match="was not made from"):
        fetch_dataset(str(tmp_path / "one.zip"), tmp_path / "other")
    with pytest.raises(DownloadError, match="no link"):
        fetch_dataset("", tmp_path / "third")


def test_of_several_folders_with_audio_none_is_taken_by_chance(tmp_path):
    for part in ("train", "test"):
        write_custom_dir(tmp_path / "an4" / part, 1, "x")
    archive = shutil.make_archive(str(tmp_path / "an4"), "zip", tmp_path / "an4")
    for link in (archive, str(tmp_path / "an4")):
        with pytest.raises(DownloadError, match="which of test, train"):
            fetch_dataset(link, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_was_fetched_stays_where_unpacking_is_stopped(tmp_path, monkeypatch):
    write_custom_dir(tmp_path / "x", 1, "x")
    archive = Path(shutil.make_archive(str(tmp_path / "made"), "gztar", tmp_path / "x"))

    def fetch(link, part):
        shutil.copy(archive, part)
        return part

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "_fetch", fetch)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "_unpack", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch_dataset("https://x/data.tar.gz", tmp_path / "out")
    assert len(list(tmp_path.glob("out-*.part"))) == 1
    assert (fetch_dataset("https://x/data.tar.gz", tmp_path / "out") / "audio").is_dir()
    assert not list(tmp_path.glob("out-*.part"))


@pytest.mark.parametrize(
    "link",
    [
        "https://drive.google.com/file/d/1a-B_c/view?usp=sharing",
        "https://drive.google.com/open?id=1a-B_c",
        "https://drive.google.com/u/0/uc?export=download&id=1a-B_c",
        "https://drive.usercontent.google.com/download?id=1a-B_c&export=download",
    ],
)
def test_links_of_google_drive_are_known(link, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(dataset, "download_gdrive", lambda id, *_: asked.append(id))
    dataset._fetch(link, tmp_path / "part")
    assert asked == ["1a-B_c"]


def test_points_stand_in_their_own_columns(tmp_path, monkeypatch):
    row = load_results(NOTEBOOKS.parent / "report/results/an4-deepspeech2.json")[0]
    no_edits = {"substitutions": 0, "deletions": 0, "insertions": 0, "wer": 0.0}
    tested = [("beam", "other"), ("greedy", "clean"), ("greedy", "other")]
    rows = [replace(row, decoder=decoder, test_data=data, **no_edits) for decoder, data in tested]
    save_results(tmp_path / "r.json", rows)
    shown = []
    monkeypatch.setattr(notebook.shows, "show_table", shown.extend)
    notebook.show_points(tmp_path / "r.json", "clean", "other")
    assert [r["clean_wer"] for r in shown] == ["", 0.0]
    assert len({tuple(r) for r in shown}) == 1


@pytest.mark.parametrize("content", ["nothing", "no archive", "no audio", "cut short"])
def test_a_link_to_no_dataset_is_refused_by_name(content, tmp_path):
    link = tmp_path / "data.zip"
    if content == "cut short":
        (tmp_path / "x" / "audio").mkdir(parents=True)
        (tmp_path / "x" / "audio" / "a.wav").write_bytes(bytes(range(256)) * 4000)
        made = Path(shutil.make_archive(str(tmp_path / "data"), "gztar", tmp_path / "x"))
        link.write_bytes(made.read_bytes()[:2000])
    if content == "no archive":
        link.write_text("<html>sign in</html>")
    if content == "no audio":
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "a.txt").write_text("a")
        shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "x")
    with pytest.raises(DownloadError, match=r"data\.zip"):
        fetch_dataset(str(link), tmp_path / "out")
    assert not (tmp_path / "out").exists()


TINY = [
    "trainer.epochs=2",
    "trainer.batch_seconds=4",
    "trainer.log_every=1",
    "trainer.log_samples=3",
]


def as_list(*values):
    return f"[{','.join(json.dumps(str(value)) for value in values)}]"


@pytest.mark.slow
def test_the_demo_profile_goes_through_an_interruption_and_repeats_nothing(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    out = tmp_path / "stages"
    command = [
        "demo",
        str(out),
        f"parameters.data={as_list('datasets=an4', f'datasets.root={corpus}')}",
        f"parameters.overrides={as_list(*TINY, 'trainer.num_workers=0')}",
        f"stages.3.parameters.overrides={as_list(*TINY, 'trainer.num_workers=0')}",
        *(
            f"stages.{i}.parameters.experiment=demo_char" for i in (2, 3)
        ),  # few texts give few pieces
        "stages.5.parameters.labels.bpe="
        + as_list("text_encoder=bpe", "text_encoder.vocabulary_size=32"),
    ]
    # two of six stages, then a step of the third
    steps = "trainer.max_hours=1e-9"
    stop = f"stages.2.parameters.overrides={as_list(*TINY, 'trainer.num_workers=0', steps)}"
    assert run_stages.main([*command, stop]) == STATUS
    metrics = out / "2_train" / "logs" / "metrics.jsonl"
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*/executed-*.ipynb")}
    assert [path.parent.name for path in out.glob("*/finished.json")] == [
        "0_setup_check",
        "1_one_batch",
    ]
    begun = metrics.read_text()

    assert run_stages.main(command) == 0
    assert metrics.read_text().startswith(begun) and len(metrics.read_text()) > len(begun)
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == sorted(steps)
    for path, time in finished.items():
        assert path.stat().st_mtime_ns == time, f"{path} was written again"
    assert (out / "2_train" / "executed-2.ipynb").exists()
    assert len(list(out.glob("*/finished.json"))) == 6

    # the notebook for users, with the model that was just trained
    papermill.execute_notebook(
        str(NOTEBOOKS / "demo.ipynb"),
        str(tmp_path / "demo.ipynb"),
        {
            "dataset": str(corpus / "test"),
            "checkpoint": str(out / "2_train"),
            "decoder": "greedy",
            "out": str(tmp_path / "predictions"),
            "install": False,
        },
        kernel_name="python3",
        cwd=str(NOTEBOOKS),
        progress_bar=False,
    )
    assert len(list((tmp_path / "predictions").glob("*.txt"))) == 6
