"""Trainings in processes of their own, which can be killed at an exact point.

They are forked from one that has imported everything, so each costs no more than its training.
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from asrlib.configs import compose
from asrlib.training import train
from asrlib.training.stopping import STATUS

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.processes"])
WATCHED = (
    f"{os.sep}asrlib{os.sep}",
    f"{os.sep}safetensors{os.sep}",
)  # files whose calls are points


@dataclass
class Strike:
    """A signal at call number ``at`` of a function in asrlib, or by asrlib of a built-in one.

    Args:
        at: 0 counts, and never strikes.
        saving: only calls within the writing of a checkpoint count.
        signal: SIGKILL hits the training's process; any other its workers, too, as from a terminal.
    """

    at: int = 0
    saving: bool = False
    signal: int = signal.SIGKILL
    calls: int = 0
    calls_in_saving: int = 0
    _depth: int = 0
    _pid: int = 0

    def start(self) -> None:
        self._pid = os.getpid()
        sys.setprofile(self)

    def __call__(self, frame, event: str, argument: object) -> None:
        if os.getpid() != self._pid:  # a worker of the loader
            sys.setprofile(None)
            return
        code = frame.f_code
        if not any(part in code.co_filename for part in WATCHED):
            return
        if code.co_name == "save_checkpoint":
            self._depth += {"call": 1, "return": -1}.get(event, 0)
        if event in ("call", "c_call"):
            self.calls += 1
            self.calls_in_saving += bool(self._depth)
            if self.at == (self.calls_in_saving if self.saving else self.calls):
                sys.setprofile(None)
                if self.signal == signal.SIGKILL:
                    os.kill(self._pid, self.signal)
                os.killpg(self._pid, self.signal)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


class Training:
    """A training in processes of its own, as torchrun would start them; waits for nothing.

    Args:
        overrides: of the configuration ``train``.
        output: the file for what it prints.
        strike: what happens to it, and where; in the last process, if there are several.
        size: number of processes.
    """

    def __init__(
        self, overrides: list[str], output: Path, strike: Strike | None = None, size: int = 1
    ):
        self.output = output
        common = {"ASRLIB_CACHE": os.environ["ASRLIB_CACHE"]}
        if size > 1:
            common |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
        self.processes = []
        for rank in range(size):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
            last = rank == size - 1
            arguments = (overrides, common | place, output, strike if last else None)
            self.processes.append(FORK.Process(target=_run, args=arguments))
            self.processes[-1].start()

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text() if self.output.exists() else ""

    def wait(self, timeout: float = 300) -> list[int]:
        """Exit statuses, −9 after a kill −9."""
        for process in self.processes:
            process.join(timeout)
            assert process.exitcode is not None, f"still running after {timeout} s:\n{self.text}"
        return [process.exitcode for process in self.processes]

    def calls(self) -> tuple[int, int]:
        """All calls that ``strike`` counted, and those in saving, of a training that was not killed."""
        return tuple(json.loads(_calls_file(self.output).read_text()))


def _calls_file(output: Path) -> Path:
    return output.with_suffix(".calls")


def _run(overrides, environment, output, strike) -> None:
    os.setsid()
    # for the loader, as in train.py: else it starts a server of its own, which survives a kill
    multiprocessing.set_start_method("fork", force=True)
    os.environ.update(environment)
    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    config = compose("train", *overrides)
    if strike is not None:
        strike.start()
    progress = train(config)
    sys.setprofile(None)
    if strike is not None:
        _calls_file(output).write_text(json.dumps([strike.calls, strike.calls_in_saving]))
    sys.exit(0 if progress.finished else STATUS)


class PoolInThisProcess:
    """Stands for ``ProcessPoolExecutor``, whose processes cost seconds to start."""

    def __init__(self, *_, **__): ...
    def __enter__(self):
        return self

    def __exit__(self, *_): ...
    def map(self, *arguments):
        return map(*arguments)
