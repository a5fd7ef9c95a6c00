"""numba, by which what is slow in Python and awkward in tensors is compiled."""

from collections.abc import Callable

try:
    import numba
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the beam decoder, and CTC on a CPU, are compiled by numba: pip install numba -c constraints.txt",
        name="numba",
    ) from error


def compiled(function: Callable) -> Callable:
    """``function`` by numba, compiled when it is first called with arguments of these types.

    What is compiled is kept on disk, beside the source or in the user's cache; where neither can be written
    to, each process compiles it anew.
    """
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # "no locator available"
        return numba.njit(function)
