"""Memory that is kept: what is freed and asked for again costs the system nothing."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from asrlib.training.allocation import keep_freed_memory

if {keep}:
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(8, 1 << 20)  # 32 MB: 8,192 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool) -> int:
    """In a process of its own, for it is the whole process that is changed."""
    command = [sys.executable, "-c", PROGRAM.format(keep=keep)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_what_was_freed_is_used_again():
    assert page_faults(keep=False) > 10 * 512  # 2 MB pages, where the system gives them, are fewer
    assert page_faults(keep=True) < page_faults(keep=False) / 4
