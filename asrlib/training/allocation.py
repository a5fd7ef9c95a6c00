"""Memory that a training on a CPU frees and asks for again at every step."""

import ctypes
import sys

# mallopt(3)
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
NEVER = 2**31 - 1
TOP_PAD_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to keep what is freed instead of giving it back to the system.

    By default large tensors are mapped when they are made and unmapped when they are freed; then the
    system clears their pages anew at every step, which takes a fifth of a Conformer's training. It
    holds for the whole process, whose size stays at its peak.

    Returns:
        whether this C library knows how: musl, macOS and Windows do not.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = {MMAP_MAX: 0, TRIM_THRESHOLD: NEVER, TOP_PAD: TOP_PAD_BYTES}
    return all(mallopt(option, value) == 1 for option, value in options.items())
