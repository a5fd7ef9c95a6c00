"""Every module of asrlib can be the first that is imported: no circles between packages."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

IMPORT_EACH_FIRST = """
import importlib, pkgutil, sys
import asrlib

names = [m.name for m in pkgutil.walk_packages(asrlib.__path__, "asrlib.", onerror=lambda _: None)]
for name in names:
    for loaded in [m for m in sys.modules if m.split(".")[0] == "asrlib"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # an optional library may be absent, asrlib may not
        if error.name.split(".")[0] == "asrlib":
            raise
    print(name)
"""


def test_every_module_can_be_imported_first():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH_FIRST], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"asrlib.augmentations", "asrlib.data.audio"} <= set(done.stdout.split())


def test_scoring_texts_does_not_wait_for_torch():
    program = "import sys, calc_metrics; print('torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
