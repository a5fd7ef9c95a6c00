"""A resource gets to its destination: from its sources in order, checked, then renamed.

The destination is complete and right or not there. Beside it, ``NAME.part`` is what has come so far;
any source goes on with it. An archive keeps that name until it is unpacked.
"""

import gzip
import hashlib
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from asrlib.download.errors import DownloadError, SourceError, UnreachableError, WrongBytesError
from asrlib.download.extract import STAMP, extract
from asrlib.download.manifest import REPOSITORY, Resource, Source
from asrlib.download.transfer import (
    CHUNK,
    DISK_FULL,
    Patience,
    bytes_in,
    download_gdrive,
    download_url,
    gdown_folder,
)


@dataclass
class Downloader:
    """Puts resources below ``root``; a file in the folder ``mirror`` comes before any source."""

    root: Path
    mirror: Path | None = None
    patience: Patience = field(default_factory=Patience)
    say: Callable[[str], None] = tqdm.write

    def get(self, resource: Resource) -> Path:
        """Makes sure that ``resource`` is there, and says what was done.

        Raises:
            DownloadError: no source helped, the disk is full, something else is in the way, or
                the archive is not safe to unpack.
        """
        destination = self.root / resource.destination
        try:
            if self._is_there(resource, destination):
                self.say(f"{resource.name}: {destination} is there already")
            else:
                destination.parent.mkdir(parents=True, exist_ok=True)
                self._get(resource, destination)
                self.say(f"{resource.name}: {destination}, {_how_checked(resource)}")
        except OSError as error:
            raise DownloadError(f"{resource.name}: {error}") from error
        return destination

    def _is_there(self, resource: Resource, destination: Path) -> bool:
        if not destination.exists():
            return False
        if resource.archive:
            stamp = destination / STAMP
            if not stamp.is_file():
                raise DownloadError(
                    f"{resource.name}: {destination} was not made by download.py. Use it as it is, "
                    "or move it away and ask again"
                )
            return stamp.read_text() == resource.sha256
        if destination.is_dir():
            raise DownloadError(f"{resource.name}: {destination} is a folder, move it away")
        try:
            check(resource, destination)
        except WrongBytesError as error:
            self.say(f"{resource.name}: {destination} will be replaced: {error}")
            return False
        return True

    def _get(self, resource: Resource, destination: Path) -> None:
        part = destination.with_name(f"{resource.filename}.part")
        fetched = self._fetch(resource, part)
        if resource.archive:
            with _room(resource, part, lambda: _unpacked_size(resource)):
                extract(fetched, resource.folder, destination, resource.sha256)
            part.unlink(missing_ok=True)
        else:
            os.replace(fetched, destination)
        shutil.rmtree(gdown_folder(part), ignore_errors=True)

    def _fetch(self, resource: Resource, part: Path) -> Path:
        """The checked file: ``part``, or for an archive wherever it lies on this machine."""
        if part.exists() and _is_right(resource, part):
            return part
        failures: dict[Source, SourceError] = {}
        for source in self._sources(resource):
            try:
                if source.kind == "file":  # an absolute path stays what it is
                    return _from_disk(resource, REPOSITORY / source.where, part)
                with _room(resource, part, lambda: _still_to_come(resource, part)):
                    self._from_afar(resource, source, part)
                return part
            except SourceError as error:
                failures[source] = error
        raise DownloadError(_nothing_helped(resource, failures))

    def _sources(self, resource: Resource) -> Iterator[Source]:
        if self.mirror:
            yield Source("file", str(self.mirror.absolute() / resource.filename))
        yield from resource.sources

    def _from_afar(self, resource: Resource, source: Source, part: Path) -> None:
        while True:
            resumed = part.exists()
            if source.kind == "gdrive":
                download_gdrive(source.where, part, self.patience)
            else:
                download_url(source.where, part, resource.size, self.patience)
            try:
                return check(resource, part)
            except WrongBytesError:
                part.unlink()
                if not resumed:
                    raise
                # What was there before may be to blame, not this source: once more, from the start.


def check(resource: Resource, path: Path) -> None:
    """Compares a file with what was published.

    Raises:
        WrongBytesError: size or sha256 differ; without a known sha256, gzip's own checksum does.
    """
    size = path.stat().st_size
    if resource.size not in (None, size):
        raise WrongBytesError(f"{size:,} bytes instead of {resource.size:,}")
    digest = hashlib.sha256()
    bar = {"desc": f"checking {path.name}", "leave": False, "disable": None}
    try:
        with open(path, "rb") as file, tqdm.wrapattr(file, "read", size, **bar) as raw:
            stream = raw if resource.sha256 else gzip.GzipFile(fileobj=raw)
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise WrongBytesError(f"broken gzip: {error}") from error
    if resource.sha256 not in (None, digest.hexdigest()):
        raise WrongBytesError(f"sha256 {digest.hexdigest()} instead of {resource.sha256}")


def _is_right(resource: Resource, path: Path) -> bool:
    try:
        check(resource, path)
    except WrongBytesError:
        return False
    return True


def _from_disk(resource: Resource, path: Path, part: Path) -> Path:
    if not path.is_file():
        raise SourceError("no such file")
    check(resource, path)
    if resource.archive:
        return path  # to be unpacked from there
    with _room(resource, part, lambda: path.stat().st_size - bytes_in(part)):
        shutil.copyfile(path, part)
    return part


def _unpacked_size(resource: Resource) -> int:
    """About what an archive holds: FLAC cannot be compressed further."""
    return (resource.size or 0) if resource.archive else 0


def _still_to_come(resource: Resource, part: Path) -> int:
    return max(0, (resource.size or 0) - bytes_in(part)) + _unpacked_size(resource)


@contextmanager
def _room(resource: Resource, part: Path, missing: Callable[[], int]) -> Iterator[None]:
    """For a block that writes ``missing()`` bytes beside ``part``: begins only if they fit.

    Raises:
        DownloadError: there is less, before the block or, as others write too, within it.
    """

    folder = part.parent

    def full() -> DownloadError:
        return DownloadError(
            f"{resource.name}: the disk is full. {folder.absolute()} needs "
            f"{missing() / 1e6:,.1f} MB more and has {shutil.disk_usage(folder).free / 1e6:,.1f} "
            "MB. What has come is kept: make room, and ask again"
        )

    if missing() > shutil.disk_usage(folder).free:
        raise full()
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise full() from error
        raise


def _how_checked(resource: Resource) -> str:
    if resource.sha256:
        return "its sha256 is right"
    return "checked by its size and gzip's own checksum (no sha256 of it is known)"


def _nothing_helped(resource: Resource, failures: dict[Source, SourceError]) -> str:
    urls = [error for source, error in failures.items() if source.kind == "url"]
    offline = urls and all(isinstance(error, UnreachableError) for error in urls)
    ours = [s.where for s in failures if s.kind == "file" and (REPOSITORY / s.where).is_file()]
    return "\n".join(
        [
            f"{resource.name}: no source helped" + (". Is there a network?" if offline else ""),
            *(f"  {source}: {error}" for source, error in failures.items()),
            *(f"  {where} was changed here: git checkout {where} brings it back" for where in ours),
            f"If you can get {resource.filename} on another machine, put it into a folder DIR: "
            f"python download.py --from DIR {resource.name}",
        ]
    )
