"""Bytes from a server into a partial file, with which a later call goes on.

- The partial file is all the state there is: whatever ends a transfer, the next one asks for the
  rest (Range), and begins anew where a server sends everything instead.
- A transfer is over when the length that the server announced has come. Whether these are the right
  bytes is for the caller to check: servers lie, and a partial file may stem from another mirror.
- ``urllib`` of the standard library does all that is needed, with proxies from the environment.
"""

import errno
import os
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError

from tqdm import tqdm

from asrlib.download.errors import SourceError, TransientError, UnreachableError

CHUNK = 2**20  # bytes
USER_AGENT = "asrlib-download (Python urllib)"
TRY_AGAIN = {408, 425, 429}  # HTTP states that pass, as do all from 500
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Patience:
    """How long to insist on one source: attempts that bring nothing new, seconds without a byte."""

    attempts: int = 5
    timeout: float = 30.0
    sleep: Callable[[float], None] = time.sleep


def bytes_in(path: Path) -> int:
    """Its size; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def download_url(url: str, part: Path, size: int | None, patience: Patience) -> None:
    """Completes ``part`` from ``url``; ``size`` is what the whole must have, if known.

    Raises:
        SourceError: the server has not this file, or cannot be reached, or brings nothing new in
            so many attempts. What came is kept in ``part``.
        OSError: ``part`` cannot be written.
    """
    failures, most = 0, bytes_in(part)
    while True:
        try:
            return _transfer(url, part, size, patience.timeout)
        except TransientError as error:
            if bytes_in(part) > most:
                failures, most = 0, bytes_in(part)
            failures += 1
            # A host that was never reached is left for the next; one that was, may come back.
            if failures >= patience.attempts or (
                failures == 1 and isinstance(error, UnreachableError)
            ):
                raise
        patience.sleep(min(2.0 ** (failures - 1), 30.0))


def _transfer(url: str, part: Path, size: int | None, timeout: float) -> None:
    start = bytes_in(part)
    if start == size:
        return  # stopped between the last byte and the check
    if size is not None and start > size:
        start = 0
    with _open(url, start, timeout) as response:
        start, total = _offer(response, start)
        if size is not None and total not in (None, size):
            raise SourceError(f"offers {total:,} bytes instead of {size:,}")
        total = total if size is None else size
        bar = {"total": total, "initial": start, "unit": "B", "unit_scale": True, "disable": None}
        with (
            open(part, "ab" if start else "wb") as file,
            tqdm(desc=part.stem, leave=False, **bar) as progress,
        ):
            for chunk in _chunks(response, None if total is None else total - start):
                file.write(chunk)
                progress.update(len(chunk))
    if total is not None and bytes_in(part) < total:
        raise TransientError(f"closed the connection after {bytes_in(part):,} of {total:,} bytes")


def _open(url: str, start: int, timeout: float) -> HTTPResponse:
    """The answer to a request for all but the first ``start`` bytes."""
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        if error.code == 416:
            return error  # it is an answer too
        error.close()
        passing = error.code in TRY_AGAIN or error.code >= 500
        raise (TransientError if passing else SourceError)(
            f"HTTP {error.code} {error.msg}"
        ) from error
    except URLError as error:
        raise UnreachableError(f"no connection: {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise TransientError(f"no answer: {error or type(error).__name__}") from error


def _offer(response: HTTPResponse, asked: int) -> tuple[int, int | None]:
    """Where the answer starts, and how long the whole file is, if the server says so."""
    if response.status == 416:  # nothing is left
        return asked, asked
    if response.status != 206:
        return 0, response.length
    given = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", given.strip())
    if not match or int(match[1]) != asked:
        raise SourceError(f"sends the range {given!r} when asked for all from {asked:,}")
    return asked, None if match[2] == "*" else int(match[2])


def _chunks(response: HTTPResponse, limit: int | None) -> Iterator[bytes]:
    left = sys.maxsize if limit is None else limit
    while left:
        try:
            # read1, not read: what came before a stall is not lost.
            chunk = response.read1(min(CHUNK, left))
        except (OSError, HTTPException) as error:
            raise TransientError(
                f"the connection broke: {error or type(error).__name__}"
            ) from error
        if not chunk:
            return
        left -= len(chunk)
        yield chunk


def gdown_folder(part: Path) -> Path:
    """Where gdown keeps its own partial file: it would take ``part`` for a finished one."""
    return part.with_name(f"{part.name}.gdown")


def download_gdrive(file_id: str, part: Path, patience: Patience) -> None:
    """Fetches a file of Google Drive to ``part``, by gdown, which resumes and retries by itself.

    Raises:
        SourceError: gdown is not installed, or could not fetch it.
        OSError: the disk is full.
    """
    try:
        import gdown  # only here: it is not needed for anything else
    except ImportError as error:
        raise SourceError("needs gdown: pip install gdown") from error
    folder = gdown_folder(part)
    folder.mkdir(exist_ok=True)
    try:
        gdown.download(
            id=file_id,
            output=str(folder / "file"),
            resume=True,
            timeout=patience.timeout,
            retries=patience.attempts - 1,
            quiet=not sys.stderr.isatty(),
        )
    except Exception as error:  # gdown's own, and any of requests
        if getattr(error, "errno", None) in DISK_FULL:
            raise
        raise SourceError(f"gdown: {error}") from error
    os.replace(folder / "file", part)
