"""A folder of a ``.tar.gz`` takes its place on the disk: all of it or nothing, and nothing elsewhere."""

import tarfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from asrlib.download.errors import DownloadError
from asrlib.files import folder_written_atomically, write_atomically

# In the finished folder, written before the folder has its name: the archive's sha256.
STAMP = ".asrlib-sha256"


def extract(archive: Path, folder: str, destination: Path, stamp: str) -> None:
    """Makes ``destination`` from ``folder`` in ``archive``, with ``stamp`` in it.

    Files that lie beside the folder in the archive (licence, list of speakers) are put beside the
    destination, unless something of that name is there.

    Raises:
        DownloadError: the archive is broken, has no such folder, or holds anything but files and
            folders below its own top. There is no destination then, or the one from before.
        OSError: it cannot be written.
    """
    top, beside = PurePosixPath(folder), {}
    found = False
    with folder_written_atomically(destination) as temporary:
        try:
            for tar, member in _members(archive):
                path = member_path(member)
                if path.is_relative_to(top) and path != top:
                    member.name = str(path.relative_to(top))
                    tar.extract(member, temporary)
                    found = True
                elif path.parent == top.parent and member.isreg():
                    beside[path.name] = tar.extractfile(member).read()
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise DownloadError(f"{archive} is broken: {error}") from error
        if not found:
            raise DownloadError(f"{archive} holds no folder {folder}")
        (temporary / STAMP).write_text(stamp)
    for name, content in beside.items():
        if not (destination.parent / name).exists():
            write_atomically(destination.parent / name, content)


def _members(archive: Path):
    """Each member with its open archive, in one pass."""
    with (
        open(archive, "rb") as file,
        tqdm.wrapattr(
            file, "read", archive.stat().st_size, desc=archive.name, leave=False, disable=None
        ) as stream,
        tarfile.open(fileobj=stream, mode="r|gz") as tar,
    ):
        # A second guard, where Python has it (3.10.12, 3.11.4): it also drops owners and odd modes.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        for member in tar:
            yield tar, member


def safe_path(name: str) -> PurePosixPath:
    """Where what is called ``name`` in an archive belongs below its top.

    Raises:
        DownloadError: elsewhere.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise DownloadError(f"unsafe archive: {name!r} leaves its folder")
    return path


def member_path(member: tarfile.TarInfo) -> PurePosixPath:
    """Likewise of a member; links and devices belong nowhere.

    Raises:
        DownloadError: such a one, or one that leaves the top.
    """
    path = safe_path(member.name)
    if not (member.isreg() or member.isdir()):
        raise DownloadError(f"unsafe archive: {member.name!r} is neither a file nor a folder")
    return path
