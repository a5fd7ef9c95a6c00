"""The processors that this process may use."""

import math
import os
from pathlib import Path

# Of a container: microseconds of CPU in a period, and the period.
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """How many; not every system tells them from those that there are. A part of one counts as one."""
    mine = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(mine(0)) if mine else os.cpu_count() or 1
    try:
        quota, period = map(int, QUOTA.read_text().split())
    except (OSError, ValueError):  # no container, or one without a limit: "max 100000"
        return cores
    return max(1, min(cores, math.ceil(quota / period)))
