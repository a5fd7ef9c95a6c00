"""numba, by which what is slow in Python and awkward in tensors is compiled."""

try:
    from numba import njit
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the beam decoder, and CTC on a CPU, are compiled by numba: pip install numba -c constraints.txt",
        name="numba",
    ) from error

__all__ = ["njit"]
