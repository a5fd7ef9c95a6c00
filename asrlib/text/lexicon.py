"""A lexicon: how words sound, in a file that can be read without what pronounced them.

A line has a word, a tab, and its phones (``asrlib.text.phones.PHONES``), divided by spaces; UTF-8, in gzip
where the name ends in ``.gz``. A word may have several lines, of which the one counts that fits best.
"""

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from asrlib.files import write_atomically
from asrlib.text.phones import ID_OF, PHONES


def write_lexicon(path: Path | str, phones_of: Mapping[str, Sequence[int]]) -> None:
    """Writes the phone ids of each word; words without any are left out."""
    lines = (
        f"{word}\t{' '.join(PHONES[i - 1] for i in ids)}\n"
        for word, ids in sorted(phones_of.items())
        if ids
    )
    content = "".join(lines).encode()
    # without a date, so that the same words are the same file
    write_atomically(
        path, gzip.compress(content, mtime=0) if str(path).endswith(".gz") else content
    )


def read_lexicon(path: Path | str) -> dict[str, list[list[int]]]:
    """Phone ids of each pronunciation of each word.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is no word with phones, or nothing that can be read.
    """
    content = Path(path).read_bytes()
    try:
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no lexicon, or is damaged: {error}") from error
    found: dict[str, list[list[int]]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        word, _, phones = line.partition("\t")
        ids = [ID_OF.get(phone) for phone in phones.split()]
        if not word or not ids or None in ids:
            raise ValueError(
                f"{path}, line {number}: {line!r} is not a word, a tab and phones, divided by spaces, of "
                f"{' '.join(PHONES)}"
            )
        found.setdefault(word, []).append(ids)
    return found
