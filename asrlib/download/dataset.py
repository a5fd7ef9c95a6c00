"""A folder of recordings from one link: ``DIR/audio``, with ``DIR/transcriptions`` where there are texts."""

import re
import shutil
from pathlib import Path

from asrlib.download.errors import DownloadError, SourceError
from asrlib.download.transfer import Patience, download_gdrive, download_url
from asrlib.files import folder_written_atomically

DRIVE_ID = re.compile(r"drive\.google\.com/(?:file/d/|(?:open|uc)\?(?:.*&)?id=)([\w-]+)")


def fetch_dataset(link: str, folder: Path | str) -> Path:
    """The folder that has ``audio`` in it, of an archive that is fetched and unpacked into ``folder``.

    Args:
        link: to a .zip or .tar.gz on the web or on Google Drive; or the path of such a file, or of a
            folder, which is used where it is.
        folder: is made; if it is there already, nothing is fetched.

    Raises:
        DownloadError: it could not be had, is no archive, or has no folder ``audio``.
    """
    folder = Path(folder)
    if Path(link).is_dir():
        return _with_audio(Path(link), link)
    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            archive = Path(link) if Path(link).is_file() else _fetch(link, part)
            with folder_written_atomically(folder) as unpacked:
                _unpack(archive, unpacked)
                _with_audio(unpacked, link)
        except SourceError as error:
            raise DownloadError(f"{link}: {error}") from error
        part.unlink(missing_ok=True)
    return _with_audio(folder, link)


def _fetch(link: str, part: Path) -> Path:
    if drive := DRIVE_ID.search(link):
        download_gdrive(drive.group(1), part, Patience())
    elif link.startswith(("http://", "https://")):
        download_url(link, part, None, Patience())
    else:
        raise DownloadError(f"{link} is neither a link nor a file or folder that is here")
    return part


def _unpack(archive: Path, folder: Path) -> None:
    """By its content, since a link's name may say nothing."""
    for kind in ("zip", "gztar", "tar"):
        options = {} if kind == "zip" else {"filter": "data"}  # no paths outside the folder
        try:
            return shutil.unpack_archive(archive, folder, kind, **options)
        except (shutil.ReadError, OSError):
            continue
    raise DownloadError(f"{archive} is neither a .zip nor a .tar.gz that can be unpacked")


def _with_audio(folder: Path, link: str) -> Path:
    found = sorted(
        (path for path in folder.rglob("audio") if path.is_dir()), key=lambda p: len(p.parts)
    )
    if not found:
        raise DownloadError(f"{link}: there is no folder named audio in it")
    return found[0].parent
