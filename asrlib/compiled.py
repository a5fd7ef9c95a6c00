"""numba, by which what is slow in Python and awkward in tensors is compiled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

try:
    import numba
    from numba.core.caching import FunctionCache
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the beam decoder, and CTC on a CPU, are compiled by numba: pip install numba -c constraints.txt",
        name="numba",
    ) from error

LOCK = "asrlib.lock"  # in the folder where numba keeps what it compiled


def compiled(function: Callable) -> Callable:
    """``function`` by numba, compiled when it is first called with arguments of these types.

    What is compiled is kept on disk, beside the source or in the user's cache; where neither can be written
    to, each process compiles it anew.
    """
    dispatcher = numba.njit(function)
    with suppress(RuntimeError):  # "no locator available"
        dispatcher._cache = _SharedCache(function)
    return dispatcher


class _SharedCache(FunctionCache):
    """numba's cache of a function, for processes that use it at the same time.

    numba reads its index, chooses a number, and writes the index before the code that it leads to. Of two
    processes that compile a function for different types at once, one would later run the other's code,
    which takes its arguments for what they are not and writes beside them.
    """

    def load_overload(self, sig, target_context):
        with self._locked(exclusively=False):
            return super().load_overload(sig, target_context)

    def save_overload(self, sig, data):
        with suppress(OSError):
            self._impl.locator.ensure_cache_path()
        with self._locked(exclusively=True):
            super().save_overload(sig, data)

    @contextmanager
    def _locked(self, exclusively: bool) -> Iterator[None]:
        """Waits for its turn, where the file system has locks and the folder is there."""
        try:
            file = (Path(self.cache_path) / LOCK).open("a")
        except OSError:
            yield
            return
        with file:
            if fcntl is not None:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX if exclusively else fcntl.LOCK_SH)
            yield
