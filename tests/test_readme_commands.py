"""The README's commands do what it says: those of a minute are run as they stand there, trainings for an
epoch of a tiny corpus; of the others every option is looked up."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from asrlib.configs import compose
from asrlib.decoding.tune import tune
from asrlib.training import Inferencer, train
from tests.corpus import write_librispeech, write_parts
from tests.test_readme import ROOT, blocks

SMALL = {  # of a training, whatever the README says; the rest of its command stays
    "trainer.epochs": "1",
    "trainer.batch_seconds": "3",
    "trainer.num_workers": "0",
    "trainer.log_samples": "1",
    "++augmentations.waveform.speed": "null",  # which some of them would not fit into
}
ELSEWHERE = {  # what is not run here, and what does run it
    "pip install": "the machine that has nothing, by .ci/run",
    "make ": "tests/test_readme.py looks for the targets",
    "torchrun ": "tests/test_distributed.py",
    "python notebooks/run_stages.py": "tests/test_notebooks.py, make kaggle-check",
    "python train.py experiment=": "tests/test_experiments.py",
    "python train.py datasets=common_voice": "tests/test_common_voice.py",
    "python train.py datasets=mixture": "tests/test_mixture.py",
}


def commands():
    """The README's command lines in order, without comments, each on one line."""
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    words = (shlex.split(line, comments=True) for line in text.splitlines())
    return [shlex.join(line) for line in words if line]


def options(command):
    """{key: value} of the overrides, and "-cn" if there is one."""
    return dict(word.split("=", 1) for word in shlex.split(command)[2:] if "=" in word)


def composed(command, **changed):
    """Its configuration, with some options ``changed``."""
    found = options(command) | changed
    script = Path(shlex.split(command)[1]).stem
    name = found.pop("-cn", script if script in ("train", "inference") else "tune")
    return compose(name, *(f"{key}={value}" for key, value in found.items()))


def elsewhere(command):
    return command.startswith(tuple(ELSEWHERE))


TRAININGS = [c for c in commands() if c.startswith("python train.py") and not elsewhere(c)]
TUNINGS = [c for c in commands() if c.startswith("python -m asrlib.decoding.tune")]
WHOLE = [c for c in commands() if not elsewhere(c) and c not in TRAININGS + TUNINGS]


def test_commands_are_found_and_have_options_that_exist():
    assert len(TRAININGS) > 12 and len(TUNINGS) == 1 and len(WHOLE) > 8
    for prefix in ELSEWHERE:
        assert any(command.startswith(prefix) for command in commands()), prefix
    for command in commands():
        if re.match(r"python (train\.py|inference\.py|-m asrlib\.decoding\.tune)", command):
            name = {"experiment": "demo"} if "experiment=NAME" in command else {}
            composed(command, **name)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder like the repository's, with the data that the README speaks of, tiny."""
    folder = tmp_path_factory.mktemp("clone")
    for path in ROOT.iterdir():
        if path.name not in ("data", "outputs", "logs", "tests"):
            (folder / path.name).symlink_to(path)
    write_parts(folder, DIR=4)
    write_parts(folder / "an4", train=6, dev=4, test=4)
    parts = ("train-clean-100", "train-clean-360", "dev-clean", "test-clean")
    write_librispeech(folder / "data/LibriSpeech", 6, *parts)
    return folder


@pytest.fixture(scope="module")
def demo(place):
    """outputs/demo, as if ``make demo`` had been run."""
    trained(place, "python train.py experiment=demo", place / "outputs/demo")
    return place / "outputs/demo"


def trained(place, command, run_dir, **changed):
    found = options(command)
    data = {"datasets": "an4", "datasets.root": str(place / "an4")}
    if found.get("datasets") == "librispeech":
        data = {"datasets.root": str(place / "data/LibriSpeech")}
    if found.get("datasets") == "shards":
        data = {"datasets.root": str(place / "shards")}
    if composed(command).text_encoder.kind == "bpe":
        data["text_encoder.vocabulary_size"] = "36"  # of so few texts
    progress = train(composed(command, **data, **SMALL | changed, run_dir=str(run_dir)))
    assert progress.finished and progress.step and not progress.bad_steps


def run(place, command):
    """Runs it there as it stands, with this Python."""
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    done = subprocess.run(
        words,
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, command + "\n" + done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_is_not_a_training_runs_as_it_stands(place, demo):
    for name in ("BEFORE", "AFTER"):
        decode = "python inference.py datasets=custom_dir datasets.test.data_dir=DIR"
        run(place, f"{decode} inferencer.table_path={name}.jsonl")
    tuning = {"datasets": "an4", "datasets.root": str(place / "an4"), "tune.from_pretrained": demo}
    tuning["decoder.lm_path"] = ROOT / "language_models/demo-4gram.arpa.gz"
    assert tune(composed(TUNINGS[0], **tuning)).stored.is_file()
    for command in WHOLE:
        if "datasets=demo" not in command:  # whose corpus espeak would speak first
            run(place, command)
            continue
        data = {"datasets": "an4", "datasets.root": str(place / "an4")}
        config = composed(command, **data, **{"inferencer.from_pretrained": str(demo)})
        assert len(Inferencer(config).run().hypotheses) == 4
    assert sorted(p.name for p in (place / "OUT").iterdir()) == [
        f"DIR{i}-s{i % 2}-b.txt" for i in range(4)
    ]
    assert "wer" in (place / "metrics.json").read_text()
    (program,) = [block for block in blocks("python") if "Recognizer" in block]
    (place / "a.flac").symlink_to(next((place / "DIR/audio").iterdir()))
    run(place, shlex.join(["python", "-c", program]))


@pytest.mark.slow
@pytest.mark.parametrize("command", TRAININGS)
def test_a_training_does_what_its_line_says(command, place, tmp_path):
    changed = {}
    if "datasets=shards" in command:
        for make in (c for c in WHOLE if c.startswith("python -m asrlib.data.shards")):
            run(place, make)
    if "init_from=RUN" in command:  # which has CTC alone, and the same listener
        before = "python train.py" + " model=conformer" * ("model=las" in command)
        trained(place, before, tmp_path / "before")
        changed = {"init_from": str(tmp_path / "before")}
    trained(place, command, tmp_path / "run", **changed)
