"""Lines for people who watch."""

import sys

from tqdm import tqdm


def tell(line: str) -> None:
    """Prints a line above the progress bar, at once also where the output is a pipe or a file."""
    tqdm.write(line)
    sys.stdout.flush()
