"""What the README shows as code is run as it stands there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from report.build import slug

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    """The code blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def files():
    """{path: text} of the blocks that begin with a comment which names a file."""
    named = re.compile(r"# (asrlib/\S+)\n(.*)", re.DOTALL)
    found = (named.fullmatch(block) for block in blocks("python") + blocks("yaml"))
    return {match.group(1): match.group(2) for match in found if match}


@pytest.mark.slow
def test_the_model_of_the_readme_passes_the_tests_of_every_model(tmp_path, corpus):
    for name in ("asrlib", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    assert set(files()) == {"asrlib/model/tdnn.py", "asrlib/configs/model/tdnn.yaml"}
    for path, content in files().items():
        (tmp_path / path).write_text(content)
    suite = tmp_path / "tests" / "test_models.py"
    line = '"tdnn": "model=tdnn"'
    assert line in README
    suite.write_text(suite.read_text().replace("MODELS = {\n", f"MODELS = {{\n    {line},\n", 1))

    def run(*arguments):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    told = run("-m", "pytest", "-q", "-k", "tdnn", "-m", "not slow", "tests/test_models.py")
    assert int(re.search(r"(\d+) passed", told).group(1)) > 5
    run(
        *("train.py", "-cn=one_batch", "model=tdnn", "datasets=an4", f"datasets.root={corpus}"),
        *("trainer.epochs=2", "trainer.eval_every=1"),
    )


def test_every_command_of_the_readme_names_a_file_that_is_there():
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    named = [match for line in commands for match in re.findall(r"python (\w[\w/]*\.py)", line)]
    named += [
        module.replace(".", "/")
        for line in commands
        for module in re.findall(r"python -m (asrlib[\w.]*)", line)
    ]
    assert len(named) > 20
    for name in named:
        there = [ROOT / name, ROOT / f"{name}.py", ROOT / name / "__main__.py"]
        assert any(path.is_file() for path in there), name


def test_every_make_target_and_link_of_the_readme_is_there():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"make ([a-z][a-z0-9-]+)", " ".join(blocks("bash")))
    named += re.findall(r"`make ([a-z][a-z0-9-]+)`", README)
    assert named and set(named) <= targets
    for link, place in re.findall(r"\]\((?!https?:)([^)#]+)#?([^)]*)\)", README):
        assert (ROOT / link).exists(), link
        if place:
            headings = re.findall(r"^#+ (.*)", (ROOT / link).read_text(), re.MULTILINE)
            assert place in map(slug, headings), place
