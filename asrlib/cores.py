"""The processors that this process may use."""

import os


def usable_cores() -> int:
    """How many; not every system tells them from those that there are."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
