"""The manifest ``asrlib/configs/resources.yaml``: what can be fetched, from where, and how to know it.

=============  =====================================================================================
key            of one resource
=============  =====================================================================================
destination    the file or folder that it becomes, below the folder of ``--dest``
archive, folder  it comes in this ``.tar.gz``, in which this folder becomes the destination
sha256         of the file as it is fetched; needed for archives
size           of the same, in bytes; needed, with ``.gz``, where no checksum is known
sources        tried in this order: ``file`` (a path in the repository), ``gdrive`` (a file's id),
               ``url``, or one of the ``mirrors`` of the manifest, followed by what their urls end in
=============  =====================================================================================
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from omegaconf import OmegaConf

import asrlib.configs

MANIFEST = Path(asrlib.configs.__file__).with_name("resources.yaml")
REPOSITORY = Path(asrlib.configs.__file__).parents[2]


@dataclass(frozen=True)
class Source:
    """A place to look: ``kind`` is file, gdrive or url."""

    kind: str
    where: str

    def __str__(self) -> str:
        return self.where if self.kind == "url" else f"{self.kind} {self.where}"


@dataclass(frozen=True)
class Resource:
    """One entry of the manifest; see the table above."""

    name: str
    destination: str
    sources: tuple[Source, ...]
    sha256: str | None = None
    size: int | None = None
    archive: str | None = None
    folder: str | None = None

    def __post_init__(self) -> None:
        for path in (self.destination, self.archive or "a", self.folder or "a"):
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError(f"{self.name}: {path} leaves the folder of --dest")
        if self.sha256 and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"{self.name}: {self.sha256!r} is no sha256")
        if bool(self.archive) != bool(self.folder):
            raise ValueError(f"{self.name}: an archive and its folder go together")
        if not self.sha256 and not (self.size and self.filename.endswith(".gz")):
            raise ValueError(f"{self.name}: needs a sha256, or else a size and gzip's own checksum")
        if self.archive and not self.sha256:
            raise ValueError(f"{self.name}: an archive is unpacked only if its sha256 is known")

    @property
    def filename(self) -> str:
        """What the file is called where it is published, and in a mirror."""
        return self.archive or PurePosixPath(self.destination).name


@dataclass(frozen=True)
class Manifest:
    """The resources by name, and the names of those fetched when none is asked for."""

    resources: dict[str, Resource]
    default: tuple[str, ...]

    def choose(self, names: Iterable[str]) -> list[Resource]:
        """The named resources, or the default ones; each once, in order.

        Raises:
            KeyError: there is no such name; the message has those that are close to it.
        """
        chosen = dict.fromkeys(names or self.default)
        for name in chosen:
            if name not in self.resources:
                close = difflib.get_close_matches(name, self.resources) or self.resources
                raise KeyError(f"no resource {name!r}; there are {', '.join(close)}")
        return [self.resources[name] for name in chosen]


def load_manifest(path: Path | str = MANIFEST) -> Manifest:
    """Reads a manifest.

    Raises:
        ValueError: an entry lacks something, or names a kind of source that there is not.
        TypeError: an entry has an unknown key, or lacks its destination.
    """
    content = OmegaConf.to_container(OmegaConf.load(path))
    mirrors = content.get("mirrors", {})
    resources = {}
    for name, entry in content["resources"].items():
        if not entry.get("sources"):
            raise ValueError(f"{name}: no sources")
        sources = [s for source in entry.pop("sources") for s in _sources(name, source, mirrors)]
        resources[name] = Resource(name=name, sources=tuple(sources), **entry)
    manifest = Manifest(resources, tuple(content["default"]))
    manifest.choose(manifest.default)
    return manifest


def _sources(name: str, entry: dict[str, str], mirrors: dict[str, list[str]]) -> list[Source]:
    [(kind, where)] = entry.items()
    if kind in mirrors:
        return [Source("url", f"{mirror}/{where}") for mirror in mirrors[kind]]
    if kind not in ("file", "gdrive", "url"):
        raise ValueError(f"{name}: no such kind of source: {kind}")
    if kind == "url" and not where.startswith(("https://", "http://")):
        raise ValueError(f"{name}: {where} is no http address")
    return [Source(kind, where)]
