"""Files and folders that are either complete or absent."""

import codecs
import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path | str, content: bytes | str) -> None:
    """Writes ``path`` under a temporary name beside it, then renames; makes missing folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # not of the name itself, which may have all the 255 bytes that a name can have
    short = hashlib.blake2b(os.fsencode(path.name), digest_size=6).hexdigest()
    temporary = path.with_name(f".{short}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """Writes one JSON object a line, under a temporary name until complete."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path, text.encode())


def read_jsonl(path: Path) -> list[dict]:
    """The objects of a file of one a line; not cut at what else ``str.splitlines`` takes for an end."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@contextmanager
def folder_written_atomically(path: Path | str) -> Iterator[Path]:
    """Yields a temporary folder that takes the name ``path`` when the block ends well.

    A folder that has the name already is replaced, after the new one is complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        replaced = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.exists():
            os.rename(path, replaced)
        os.rename(temporary, path)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def finish_what_was_killed(parent: Path) -> None:
    """Tidies ``parent`` after a process died within ``folder_written_atomically``.

    What was being written goes; what was to be replaced, and was not, has its name again.
    """
    for replaced in parent.glob(".*.old"):
        path = parent / replaced.name[1:].rsplit(".", 2)[0]
        if path.exists():
            shutil.rmtree(replaced)
        else:
            os.rename(replaced, path)
    for temporary in parent.glob(".*.tmp"):
        shutil.rmtree(temporary)


def remove_folder(path: Path) -> None:
    """Removes a folder so that, killed half-way, it leaves none with its name."""
    doomed = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def speaker_of(id: str, pattern: str | None) -> str | None:
    """What the first group of ``pattern`` finds in an id; None without a pattern, or where it finds nothing.

    Raises:
        ValueError: no regular expression, or one without a group.
    """
    if not pattern:
        return None
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"speaker_pattern {pattern!r}: {error}") from error
    if not expression.groups:
        raise ValueError(f"speaker_pattern {pattern!r} has no group: -(.+)- finds ann in an1-ann-b")
    match = expression.search(id)
    return match.group(1) if match else None


def texts_by_id(folder: Path) -> dict[str, Path]:
    """{ID: path} of every ``ID.txt`` in ``folder`` that is not hidden, its ending in any case; none where it
    is no folder. IDs are ``composed``."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    texts = (path for path in found if path.suffix.lower() == ".txt" and not path.is_dir())
    return {composed(path.stem): path for path in texts if not path.name.startswith(".")}


def composed(name: str) -> str:
    """A file's name as it is compared: what macOS writes as a letter and its accent is one character."""
    return unicodedata.normalize("NFC", name)


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in UTF-16 where it begins as Windows' editors begin such a file.

    Raises:
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig", "replace")


def shown(path: Path | str) -> str:
    """A path that can be printed and written, also where its name is no UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")
