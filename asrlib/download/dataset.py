"""A folder of recordings from one link: ``DIR/audio``, with ``DIR/transcriptions`` where there are texts."""

import hashlib
import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path

from asrlib.download.errors import DownloadError, SourceError
from asrlib.download.extract import member_path, safe_path
from asrlib.download.transfer import Patience, download_gdrive, download_url, gdown_folder
from asrlib.files import folder_written_atomically

DRIVE_ID = re.compile(r"drive\.(?:usercontent\.)?google\.com/.*?(?:/d/|[?&]id=)([\w-]+)")
STAMP = ".asrlib-link"  # in the unpacked folder: what it was made from
BROKEN = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, RuntimeError)


def fetch_dataset(link: str, folder: Path | str) -> Path:
    """The folder that has ``audio`` in it, of an archive that is fetched and unpacked into ``folder``.

    Args:
        link: to a .zip or .tar.gz on the web or on Google Drive; or the path of such a file, or of a
            folder, which is used where it is.
        folder: is made, or made anew if it was made from another link; if it was made from this one,
            nothing is fetched.

    Raises:
        DownloadError: no link, or it could not be had, is no archive, or has no folder ``audio``; or
            ``folder`` is there, and was not made here.
        OSError: no room for what it holds.
    """
    folder = Path(folder)
    if not link:
        raise DownloadError(
            "no link to a dataset: a .zip or .tar.gz, or a folder that has audio in it"
        )
    if Path(link).is_dir():
        return _with_audio(Path(link), link)
    stamp = folder / STAMP
    if folder.exists() and not stamp.is_file():
        raise DownloadError(f"{folder} is there, and was not made from {link}: move it away")
    if not folder.exists() or stamp.read_text(encoding="utf-8") != link:
        name = f"{folder.name}-{hashlib.sha256(link.encode()).hexdigest()[:8]}.part"
        part = folder.with_name(name)
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            archive = Path(link) if Path(link).is_file() else _fetch(link, part)
        except SourceError as error:  # what has come so far stays, to go on from
            raise DownloadError(f"{link}: {error}") from error
        try:
            with folder_written_atomically(folder) as unpacked:
                _unpack(archive, unpacked, link)
                _with_audio(unpacked, link)
                (unpacked / STAMP).write_text(link, encoding="utf-8")
        except DownloadError:  # another error, or a stop, leaves what was fetched
            _forget(part)
            raise
        _forget(part)
    return _with_audio(folder, link)


def _fetch(link: str, part: Path) -> Path:
    if drive := DRIVE_ID.search(link):
        download_gdrive(drive.group(1), part, Patience())
    elif link.startswith(("http://", "https://")):
        download_url(link, part, None, Patience())
    else:
        raise DownloadError(f"{link} is neither a link nor a file or folder that is here")
    return part


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    shutil.rmtree(gdown_folder(part), ignore_errors=True)


def _unpack(archive: Path, folder: Path, link: str) -> None:
    """By its content, since a link's name may say nothing; all of it, or an error."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as content:
                for member in content.infolist():
                    safe_path(member.filename)
                    content.extract(member, folder)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as content:
                # a second guard, where Python has it
                content.extraction_filter = getattr(tarfile, "data_filter", None)
                for member in content:
                    member_path(member)
                    content.extract(member, folder)
        else:
            raise DownloadError("neither a whole .zip nor a .tar.gz; does the link lead to a page?")
    except DownloadError as error:
        raise DownloadError(f"{link}: {error}") from error
    except BROKEN as error:
        raise DownloadError(f"{link} cannot be unpacked: {error}") from error


def _with_audio(folder: Path, link: str) -> Path:
    found = [path.parent for path in folder.rglob("audio") if path.is_dir()]
    if not found:
        raise DownloadError(f"{link}: there is no folder named audio in it")
    depth = min(len(path.parts) for path in found)
    nearest = sorted(path for path in found if len(path.parts) == depth)
    if len(nearest) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in nearest)
        raise DownloadError(
            f"{link}: which of {names}? Each has a folder named audio: give one of them"
        )
    return nearest[0]
