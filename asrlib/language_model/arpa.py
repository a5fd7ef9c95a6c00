r"""ARPA files, read line by line: some of them are larger than memory.

After a ``\data\`` with the number of n-grams of each order, each n-gram has a line of its own: its
decimal log probability, its words and, unless no longer n-gram can follow, a back-off weight.
Doug Paul's format, as the manual of SRILM (ngram-format) and KenLM's reader describe it. Fields are
divided by tabs or spaces, and text may stand before ``\data\``.
"""

import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

_GZIP_MAGIC = b"\x1f\x8b"
_COUNT = re.compile(rb"ngram\s+(\d+)\s*=\s*(\d+)")


class Arpa:
    """An ARPA file that is being read, once and in its order.

    Attributes:
        counts: how many n-grams of order 1, 2 … the file says it has.
    """

    def __init__(self, path: Path, file: BinaryIO):
        self._path, self._number = path, 0
        self._lines = self._read(file)
        self.counts, self._heading = self._head()

    def ngrams(self, order: int) -> Iterator[list[bytes]]:
        """The fields of each n-gram: log10 p, the words and perhaps a back-off weight.

        The orders must be asked for from 1 upwards, each to its end.

        Raises:
            ValueError: a line that is no n-gram of this order, or not as many as announced.
        """
        if self._heading != b"\\%d-grams:" % order:
            raise self.error(f"{self._heading!r} where \\{order}-grams: is due")
        if order > len(self.counts):
            raise self.error(f"\\data\\ announced no {order}-grams")
        found = 0
        for line in self._lines:
            if line.startswith(b"\\"):
                self._heading = line.strip()
                break
            fields = line.split()
            if not (1 <= len(fields) - order <= 2 and _is_number(fields[0])):
                raise self.error(f"{line.strip()[:80]!r} is no {order}-gram")
            yield fields
            found += 1
        else:
            raise self.error("the file ends here without \\end\\: it was cut short")
        if found != self.counts[order - 1]:
            expected = self.counts[order - 1]
            raise self.error(f"{found} {order}-grams, where \\data\\ announced {expected}")

    def end(self) -> None:
        """To be called after the last order.

        Raises:
            ValueError: something else than the file's end follows.
        """
        if self._heading != b"\\end\\":
            raise self.error(f"{self._heading!r} where \\end\\ is due")

    def error(self, problem: str) -> ValueError:
        """What to raise about the line that was read last."""
        return ValueError(f"{self._path}, line {self._number}: {problem}")

    def _read(self, file: BinaryIO) -> Iterator[bytes]:
        """The lines that are not empty."""
        try:
            for line in file:
                self._number += 1
                if not line.isspace():
                    yield line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self.error(f"damaged shortly after it: {error}") from error

    def _head(self) -> tuple[list[int], bytes]:
        r"""The counts, and the line after them."""
        if not any(line.strip() == b"\\data\\" for line in self._lines):
            raise ValueError(f"{self._path} is not a language model: no \\data\\ in it")
        counts: list[int] = []
        for line in self._lines:
            match = _COUNT.fullmatch(line.strip())
            if not match:
                return counts, line.strip()
            if int(match[1]) != len(counts) + 1:
                raise self.error(f"the count of {len(counts) + 1}-grams is due")
            counts.append(int(match[2]))
        raise self.error("the file ends here without \\end\\: it was cut short")


@contextmanager
def open_arpa(path: Path) -> Iterator[Arpa]:
    r"""The ARPA file ``path``, plain or gzip's, whatever its name.

    Raises:
        ValueError: it has no ``\data\``, or a damaged head.
    """
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
    with io.BufferedReader(gzip.open(path), 2**16) if packed else path.open("rb") as file:
        yield Arpa(path, file)


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the name ``path`` when the block ends well.

    Compressed if ``path`` ends in ``.gz``, and then the same bytes for the same content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with ExitStack() as stack:
            file = stack.enter_context(temporary.open("wb"))
            if path.suffix == ".gz":
                packed = stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0))
                file = stack.enter_context(io.BufferedWriter(packed, 2**20))
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
