"""KenLM's binary files, of which KenLM itself does not list the words."""

import mmap
from pathlib import Path

_MAGIC = b"mmap lm"


def is_binary(path: Path) -> bool:
    """Whether KenLM's ``build_binary`` wrote ``path``."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def words_of(path: Path) -> list[bytes]:
    """The words of a binary, its marks among them; empty if it was built without them."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.rfind(b"<unk>\0")  # they stand at the end of the file, this one first
        return data[start:].split(b"\0")[:-1] if start >= 0 else []
