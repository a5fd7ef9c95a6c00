"""The commands of the README, run from a notebook.

Design choices:

* A command runs in a process of its own, exactly as it could be typed, and is shown. So a notebook has
  no logic that ``train.py`` and ``inference.py`` lack, and the GPU's memory is free after each.
* All that a notebook does can be done again: trainings go on, or are finished and end at once.
* Time is shared: ``begin(hours)`` says how long a notebook may take. A training gets what is left and
  ends with a checkpoint; then ``Stopped`` ends the notebook, and ``run_stages.py`` sees that by its name.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

from asrlib.configs import override
from asrlib.files import read_jsonl
from asrlib.training.stopping import STATUS

_end = math.inf  # of the notebook's time, by time.monotonic


class Stopped(Exception):  # noqa: N818
    """No error: the time is up, or a training was told to stop. The same notebook again goes on."""


def begin(hours: float | None = None) -> None:
    """From now the notebook has ``hours``; without a number, all the time in the world."""
    global _end
    _end = math.inf if hours is None else time.monotonic() + 3600 * hours


def hours_left() -> float | None:
    """None where there is no end."""
    return None if _end == math.inf else (_end - time.monotonic()) / 3600


def run(*arguments: str, stops_itself: bool = False) -> None:
    """Shows and runs ``python ARGUMENTS``, its output line by line.

    Args:
        stops_itself: it knows when its time is up; else it is terminated then.

    Raises:
        Stopped: it ended before it was done; the same again goes on.
        RuntimeError: it failed; what it wrote says why.
    """
    print(f"$ {shlex.join(['python', *arguments])}", flush=True)
    left = hours_left()
    if left is not None and left <= 0:
        raise Stopped("no time is left")
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )
    timer = None
    if left is not None and not stops_itself:
        timer = threading.Timer(3600 * left, process.terminate)
        timer.start()
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
        status = process.wait()
    except BaseException:  # such as the notebook's stop button: what it wrote so far is kept
        process.terminate()
        process.wait()
        raise
    finally:
        if timer is not None:
            timer.cancel()
    if status == STATUS or (status and timer is not None and hours_left() <= 0):
        raise Stopped("it goes on where it is when this notebook is run again")
    if status:
        raise RuntimeError(f"the command above ended with status {status}; its last lines say why")


def _end_with_parent() -> None:
    """In a new process on Linux: SIGTERM, at which trainings save, when a killed kernel leaves it behind."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def train(
    run_dir: Path | str, *overrides: str, processes: int | None = None, config: str = "train"
) -> dict:
    """Trains, or goes on, or finds it finished; returns the last row of dev in its log.

    Args:
        overrides: of ``train.py``: experiment=NAME, KEY=VALUE.
        processes: that train together, each with a GPU of its own; None is one for each GPU.
        config: the configuration that the overrides change: train, or one_batch.

    Raises:
        Stopped, RuntimeError: as ``run``.
    """
    key = "trainer.max_hours="
    limits = [float(o.removeprefix(key)) for o in overrides if re.match(rf"{key}[\d.]", o)]
    if hours_left() is not None:
        limits.append(hours_left())
    limit = [f"{key}{min(limits):.6g}"] if limits else []
    asked = [o for o in overrides if not o.startswith(key)]
    command = ["train.py", f"-cn={config}", *asked, *limit, override("run_dir", run_dir)]
    if (processes := processes or torch.cuda.device_count()) > 1:
        command = ["-m", "asrlib.launch", str(processes), *command]
    run(*command, stops_itself=True)
    rows = read_jsonl(Path(run_dir) / "logs" / "metrics.jsonl")
    return [row for row in rows if "WER_val" in row][-1]


def infer(checkpoint: Path | str, *overrides: str) -> None:
    """``inference.py`` with a checkpoint, which names files that it cannot use; errors as ``run``."""
    chosen = override("inferencer.from_pretrained", checkpoint)
    run("inference.py", chosen, "inferencer.strict=false", *overrides)


def tune(checkpoint: Path | str, language_model: Path | str, *overrides: str) -> None:
    """Finds the weights of ``language_model`` on dev, for decoder=tuned; errors as ``run``."""
    run(
        "-m",
        "asrlib.decoding.tune",
        override("tune.from_pretrained", checkpoint),
        override("decoder.lm_path", language_model),
        *overrides,
    )


def writer() -> str:
    """The choice of ``writer=``: W&B where a key is set or among Kaggle's or Colab's secrets, else local."""
    name = "WANDB_API_KEY"
    if name not in os.environ and (key := _secret(name)):
        os.environ[name] = key
    return "writer=wandb" if name in os.environ else "writer=local"


def _secret(name: str) -> str | None:
    """From the store of the service that this runs on, if it has one and it is open to this notebook."""
    try:
        if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
            from kaggle_secrets import UserSecretsClient

            return UserSecretsClient().get_secret(name)
        from google.colab import userdata

        return userdata.get(name)
    except Exception:  # the services have many errors of their own for "there is none"
        return None
