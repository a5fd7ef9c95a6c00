"""Runs that are interrupted, and what must not differ from one that was not."""

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file

from asrlib import checkpoint
from asrlib.tracking.errors import HYPOTHESES
from tests.corpus import tiny_overrides
from tests.processes import Strike, Training
from tests.signals import hiss

EPOCHS = 3
TIMED = ("audio_seconds_per_second_train", "train_seconds", "measured_seconds")
EVERY_STEP = "1e-9"  # minutes


def overrides(corpus, run_dir, *others):
    """A training of a few steps in which all that could be forgotten has a part."""
    return [
        *tiny_overrides(corpus, run_dir),
        "model=conformer",
        "optimizer.lr=1e-2",
        f"trainer.epochs={EPOCHS}",
        "trainer.average=0.9",
        "trainer.log_every=3",
        "trainer.log_samples=0",
        "trainer.save_every_minutes=null",
        *others,
    ]


def everything(background: Path) -> list[str]:
    """Two workers, all augmentations, and the scaled losses of float16.

    Args:
        background: a folder that gets a recording of noise, unless it is there.
    """
    if not background.exists():
        background.mkdir()
        soundfile.write(background / "hiss.wav", hiss(1.0, seed=1), 16_000)
    noise = f"{{_target_: asrlib.augmentations.NoiseFiles, p: 0.5, data_dir: '{background}'}}"
    return [
        "trainer.num_workers=2",
        "trainer.precision=fp16",
        f"augmentations.waveform.background={noise}",
    ]


def newest(run_dir):
    return checkpoint.find_latest(run_dir / "checkpoints")


def without_times(row):
    return {key: value for key, value in row.items() if key not in TIMED}


def state(path):
    found = without_times(checkpoint.read_state(path))
    del found["command"]
    return found


def log(run_dir):
    lines = (run_dir / "logs/metrics.jsonl").read_text().splitlines()
    return [without_times(json.loads(line)) for line in lines]


def assert_same_run(run_dir, expected, note=""):
    """Weights, average, optimiser, scaler, results, the best model and the log: all bit for bit."""
    pairs = [(newest(run_dir), newest(expected))]
    pairs.append(tuple(path / "checkpoints/best" for path in (run_dir, expected)))
    for found, wanted in pairs:
        files = sorted(path.name for path in wanted.iterdir())
        assert sorted(path.name for path in found.iterdir()) == files, note
        for name in (name for name in files if name.endswith(".safetensors")):
            a, b = load_file(found / name), load_file(wanted / name)
            assert a.keys() == b.keys(), note
            different = [key for key in a if not torch.equal(a[key], b[key])]
            assert not different, f"{found.name}/{name}: {different} {note}"
        assert state(found) == state(wanted), note
    assert log(run_dir) == log(expected), note
    assert (run_dir / HYPOTHESES).read_text() == (expected / HYPOTHESES).read_text(), note


def kill_again_and_again(
    options: list[str],
    run_dir: Path,
    where: list[bool],
    calls: tuple[int, int],
    rng: np.random.Generator,
) -> Iterator[tuple[bool, int, int, str]]:
    """Kills a training −9 at a random point of each of its sittings.

    Args:
        where: for each sitting, whether it is killed within the writing of its first checkpoint.
        calls: points of a whole training: all of them, and those in saving.

    Yields:
        of each sitting: that, the call at which it was to be killed, its status, what it printed.
    """
    for saving in where:
        # within the first checkpoint, for a sitting may be too short for more; else in its first half
        at = int(rng.integers(1, calls[saving] // (EPOCHS + 1 if saving else 2)))
        minutes = rng.choice(["null", "0.002", EVERY_STEP])
        strike = Strike(at, saving)
        run = Training(
            [*options, f"trainer.save_every_minutes={minutes}"], run_dir / "output", strike
        )
        (status,) = run.wait()
        assert status in (-signal.SIGKILL, 0), run.text
        yield saving, at, status, run.text


@contextmanager
def file_limit() -> Iterator:
    """A function that makes every write beyond so many bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
