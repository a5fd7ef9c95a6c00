"""Where faults are injected: tiny trainings on a corpus of tones, and one that nothing interrupted."""

import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from asrlib.configs import compose
from asrlib.training import Trainer, build_trainer, train
from tests.corpus import write_parts
from tests.survival import assert_same_run, overrides


class Bench:
    """A corpus of tones, and a run on it that nothing interrupted."""

    def __init__(self, root: Path):
        self.root, self.corpus = root, root / "corpus"
        write_parts(self.corpus, train=10, dev=10)
        self.whole = self.folder("whole")
        train(self.config(self.whole))

    def folder(self, name: str) -> Path:
        """A new one."""
        path = self.root / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def options(self, run_dir: Path, *others: str) -> list[str]:
        return overrides(self.corpus, run_dir, *others)

    def config(self, run_dir: Path, *others: str) -> DictConfig:
        return compose("train", *self.options(run_dir, *others))

    def trainer(self, run_dir: Path, *others: str) -> Trainer:
        return build_trainer(self.config(run_dir, *others))

    def unfinished(self, name: str) -> Path:
        """A run with two checkpoints that was stopped in its last evaluation."""
        trainer = self.trainer(run_dir := self.folder(name))
        decode = trainer.decoder

        def decoder(*arguments):
            if trainer.progress.epoch == 2:
                signal.raise_signal(signal.SIGTERM)
            return decode(*arguments)

        trainer.decoder = decoder
        trainer.train()
        return run_dir


def is_same(run_dir: Path, expected: Path) -> bool:
    try:
        assert_same_run(run_dir, expected)
    except AssertionError as error:
        print(error, file=sys.stderr)
        return False
    return True


def error_of(function: Callable, *kinds: type[Exception]) -> str:
    """The message of the error that ``function`` ends with; empty if with none of ``kinds``."""
    try:
        function()
    except kinds as error:
        return str(error)
    return ""
