"""Trainings that end before their time, and go on."""

import os
import shutil
import signal
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch

from asrlib import checkpoint
from asrlib.randomness import generator
from asrlib.training import Trainer, saving, train
from asrlib.training.stopping import STATUS
from report.faults.bench import Bench, error_of, is_same
from tests.processes import Strike, Training
from tests.survival import (
    everything,
    file_limit,
    files_of,
    flip_a_bit,
    kill_again_and_again,
    newest,
)

SEED = 0  # of the random points
CHAINS, KILLS, KILLS_IN_SAVING = 4, 5, 2  # trainings, and sittings of each that are killed


def killed(bench: Bench) -> dict:
    background = bench.root / "background"
    options = everything(background)
    whole = bench.folder("everything")
    run = Training(bench.options(whole, *options), whole / "output", Strike())
    run.wait()
    calls, done, same = run.calls(), [], []
    for chain in range(CHAINS):
        rng, run_dir = generator(SEED, chain, "kills"), bench.folder("killed")
        where = rng.permutation([False] * KILLS + [True] * KILLS_IN_SAVING).tolist()
        sittings = bench.options(run_dir, *options)
        done += kill_again_and_again(sittings, run_dir, where, calls, rng)
        Training(sittings, run_dir / "output").wait()
        same.append(is_same(run_dir, whole))
    kills = [(at, in_saving) for in_saving, at, status, _ in done if status == -signal.SIGKILL]
    return {
        "injected": f"SIGKILL at random function calls of {CHAINS} trainings in float16 with 2 workers and "
        "all augmentations, again and again until each was left to end",
        "kept": "the same run",
        "held": all(same) and len(kills) >= 20 and any(in_saving for _, in_saving in kills),
        "seen": {
            "kills": len(kills),
            "of these while a checkpoint was written": sum(in_saving for _, in_saving in kills),
            "at calls": [at for at, _ in kills],
            "calls of a whole training, of these while checkpoints are written": calls,
            "trainings that are the same run": sum(same),
            "seed": SEED,
        },
    }


def signalled(bench: Bench, number: signal.Signals, at: int) -> dict:
    run_dir = bench.folder(number.name)
    options = bench.options(run_dir, "trainer.num_workers=2")
    run = Training(options, run_dir / "output", Strike(at, signal=number))
    statuses = run.wait()
    told = [line for line in run.text.splitlines() if "saved in" in line]
    Training(options, run_dir / "output").wait()
    return {
        "injected": f"{number.name} to a training and its 2 workers, at function call {at}",
        "kept": f"a checkpoint at that step, status {STATUS}; with the same command, the same run",
        "held": statuses == [STATUS] and len(told) == 1 and is_same(run_dir, bench.whole),
        "seen": {"status": statuses[0], "told": told[0].replace(str(bench.root), "…")},
    }


def sigterm(bench: Bench) -> dict:
    return signalled(bench, signal.SIGTERM, at=7_000)


def sigint(bench: Bench) -> dict:
    return signalled(bench, signal.SIGINT, at=8_000)


def time_is_up(bench: Bench) -> dict:
    run_dir, sittings, finished = bench.folder("time"), 0, False
    while not finished:
        finished = train(bench.config(run_dir, "trainer.max_hours=1e-9")).finished
        sittings += 1
    return {
        "injected": "trainer.max_hours=1e-9, so that each sitting is over after its first step",
        "kept": "a checkpoint after each sitting; in the end, the same run",
        "held": sittings > 1 and is_same(run_dir, bench.whole),
        "seen": {"sittings": sittings},
    }


def full_disk(bench: Bench) -> dict:
    run_dir, before, save = bench.folder("disk"), {}, saving.save
    with file_limit() as limit:

        def save_then_fill(trainer: Trainer, is_best: bool) -> Path:
            if trainer.progress.epoch == 2:
                before.update(files_of(run_dir / "checkpoints"))
                limit(100_000)
            return save(trainer, is_best)

        saving.save = save_then_fill
        try:
            told = error_of(lambda: train(bench.config(run_dir)), OSError)
        finally:
            saving.save = save
    kept = files_of(run_dir / "checkpoints") == before
    train(bench.config(run_dir))
    return {
        "injected": "a limit on the size of files (RLIMIT_FSIZE) below that of the weights, from the second "
        "checkpoint on: writing fails half-way, as on a full disk",
        "kept": "older checkpoints, byte for byte, and no half-written one; with room again, the same run",
        "held": bool(told) and kept and is_same(run_dir, bench.whole),
        "seen": {"error": told.replace(str(bench.root), "…"), "older files as they were": kept},
    }


def damaged(bench: Bench) -> dict:
    harms = {
        "one bit of the weights flipped": lambda path: flip_a_bit(path / "model.safetensors"),
        "optimiser cut short": lambda path: os.truncate(path / "optimizer.safetensors", 1000),
        "state missing": lambda path: (path / "state.json").unlink(),
    }
    seen, held = {}, True
    for name, harm in harms.items():
        harm(newest(run_dir := bench.unfinished("damaged")))
        with redirect_stdout(StringIO()) as output:
            train(bench.config(run_dir))
        told = [line for line in output.getvalue().splitlines() if "is damaged" in line]
        held = held and len(told) == 1 and is_same(run_dir, bench.whole)
        seen[name] = told[0].replace(str(bench.root), "…") if told else ""
    return {
        "injected": f"of two checkpoints, the newer: {', '.join(harms)}",
        "kept": "the checkpoint before it, from which training goes on: the same run; the damaged one is "
        "named and set aside",
        "held": held,
        "seen": seen,
    }


def changed(bench: Bench) -> dict:
    run_dir = bench.unfinished("changed")
    before = files_of(run_dir / "checkpoints")
    other = bench.root / "other"
    shutil.copytree(bench.corpus, other)
    next((other / "train/transcriptions").iterdir()).write_text("other words")
    refused = {
        "optimizer.lr=1": ["optimizer.lr=1"],
        "other texts": [f"datasets.root={other}"],
    }
    told = {
        name: error_of(lambda change=change: train(bench.config(run_dir, *change)), ValueError)
        for name, change in refused.items()
    }
    kept = files_of(run_dir / "checkpoints") == before
    moved = shutil.copytree(bench.corpus, bench.root / "moved")
    train(bench.config(run_dir, f"datasets.root={moved}", "trainer.num_workers=1"))
    a, b = (checkpoint.read_weights(newest(run)) for run in (run_dir, bench.whole))
    same = all(torch.equal(a[name], b[name]) for name in b)
    return {
        "injected": "another learning rate, other texts in the corpus; then a corpus that was moved, and "
        "another number of workers",
        "kept": "the checkpoints: the first two are refused by name; the others go on to the same weights",
        "held": all(told.values()) and kept and same,
        "seen": {name: line.splitlines()[1].strip() for name, line in told.items()},
    }


FAULTS = {
    "kill -9 anywhere, also within the writing of a checkpoint": killed,
    "SIGTERM": sigterm,
    "SIGINT (Ctrl-C)": sigint,
    "time is up": time_is_up,
    "full disk": full_disk,
    "damaged newest checkpoint": damaged,
    "changed configuration or data": changed,
}
