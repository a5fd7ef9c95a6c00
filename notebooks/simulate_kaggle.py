"""Rehearses a Kaggle session on this machine: make kaggle-check. It needs the package registry.

* An environment that has torch, torchaudio and numpy 2 already, as Kaggle's image; our requirements are
  installed into it as the notebook does, and those three must keep their versions.
* A read-only input folder in LibriSpeech's form, another working folder, and no W&B key.
* All stages of the profile ``kaggle-t4x2`` at tiny size, two processes for the two GPUs, with an
  interruption: the second session has the output of the first as a read-only input.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from asrlib.training.stopping import STATUS  # noqa: E402
from tests.corpus import write_librispeech  # noqa: E402

IMAGE = ("torch", "torchaudio", "numpy")
VERSIONS = (
    "torch==2.11.0",
    "torchaudio==2.11.0",
    "numpy==2.3.5",
)  # numpy: not that of constraints.txt
PARTS = ("train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other")
TINY = [
    "trainer.epochs=2",
    "trainer.batch_seconds=4",
    "trainer.num_workers=0",
    "trainer.log_every=1",
    "model.size=xxs",
    "model.listener.intermediate_layers=[1]",
    "text_encoder.vocabulary_size=36",
    "augmentations.waveform.speed=null",
]


def run(*command: str | Path, expected: int = 0, **options) -> None:
    print("$", *command, flush=True)
    status = subprocess.run([str(part) for part in command], **options).returncode
    if status != expected:
        sys.exit(f"kaggle-check: status {status} instead of {expected}")


def versions(python: Path) -> dict[str, str]:
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {IMAGE}}}))"
    return json.loads(subprocess.run([python, "-c", code], capture_output=True, check=True).stdout)


def read_only(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)


def remove(place: Path) -> None:
    """Also what ``read_only`` was done to; nothing that a link leads to is touched."""
    for folder in (path for path in place.rglob("*") if path.is_dir() and not path.is_symlink()):
        folder.chmod(0o755)
    shutil.rmtree(place)


def contents(folder: Path) -> list[tuple[str, int]]:
    """Names and times of all that is below it: who is root can write to what is read-only."""
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def as_list(values: list[str]) -> str:
    return f"[{','.join(json.dumps(value) for value in values)}]"


def main(place: Path) -> None:
    if place.exists():
        remove(place)
    place.mkdir(parents=True)
    python = place / "image" / "bin" / "python"
    run(sys.executable, "-m", "venv", place / "image")
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    run(*pip, *VERSIONS)
    before = versions(python)
    checkout = place / "tmp" / "asrlib"
    run("git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", checkout)
    run(*pip, "-r", "requirements.txt", cwd=checkout)
    run(*pip, "--no-deps", "--no-build-isolation", "-r", "requirements-nodeps.txt", cwd=checkout)
    after = versions(python)
    if after != before:
        sys.exit(f"kaggle-check: installing replaced {before} by {after}")

    data = write_librispeech(place / "input" / "LibriSpeech", 6, *PARTS, "test-clean", "test-other")
    read_only(place / "input")
    inputs = contents(place / "input")
    environment = {name: value for name, value in os.environ.items() if "WANDB" not in name}
    environment["ASRLIB_CACHE"] = str(place / "cache")
    changes = [
        f"links.data/LibriSpeech={data}",
        "parameters.processes=2",
        f"parameters.overrides={as_list(TINY)}",
        f"stages.1.parameters.overrides={as_list(TINY[:4])}",
        f"stages.4.parameters.language_model={checkout}/language_models/demo-4gram.arpa.gz",
    ]
    stop = f"stages.3.parameters.overrides={as_list([*TINY, 'trainer.max_hours=1e-9'])}"
    stages = (python, "notebooks/run_stages.py", "kaggle-t4x2")
    options = {"cwd": checkout, "env": environment}
    run(*stages, place / "working", *changes, stop, expected=STATUS, **options)
    read_only(place / "working")
    earlier = contents(place / "working")
    run(*stages, place / "next", "--previous", place / "working", *changes, **options)
    if contents(place / "input") != inputs or contents(place / "working") != earlier:
        sys.exit("kaggle-check: something was written into an input")
    finished = sorted(path.parent.name for path in (place / "next").glob("*/finished.json"))
    print(f"finished: {finished}; kept: {after}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "outputs" / "kaggle-check")
