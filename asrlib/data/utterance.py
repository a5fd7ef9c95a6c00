"""An utterance, and the cached index of a folder of them.

Scanning a large corpus reads every header once, so the result is kept as JSON lines in a cache that
can be written to (data folders are read-only on Kaggle): ``$ASRLIB_CACHE``, else ``~/.cache/asrlib``.
The key is the folder and what is in it (names, sizes, modification times), so a changed folder is
scanned again.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from asrlib.data.audio import AudioError, audio_info
from asrlib.files import read_jsonl, shown, write_jsonl

INDEX_VERSION = 4


@dataclass(frozen=True)
class Utterance:
    """One recording with its words, if they are known."""

    id: str
    path: str
    text: str | None  # as found; datasets normalise it
    duration: float  # seconds, from the header
    speaker: str | None = None


@dataclass
class Index:
    """Usable utterances in a fixed order, and what was left out: {path or id: reason}.

    A reason begins with that path or id and a colon; details that differ from one utterance to the next
    stand at its end, in parentheses.
    """

    utterances: list[Utterance] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    _path_of: dict[str, Path] = field(default_factory=dict, repr=False, compare=False)
    _unusable: set[str] = field(default_factory=set, repr=False, compare=False)

    def add(self, id: str, path: Path, text: str | None, speaker: str | None = None) -> None:
        """Adds a file, or notes by name why it cannot be used; of two with one id, the first usable one
        counts."""
        if (first := self._path_of.get(id, path)) != path:
            self.skipped[shown(path)] = (
                f"{shown(path)}: has the same id as another ({shown(first.name)})"
            )
            return
        if (name := shown(path)) != str(path):
            self.skipped[name] = f"{name}: its name is not UTF-8: rename it"
            self._unusable.add(id)
            return
        try:
            duration = audio_info(path).duration
        except AudioError as error:
            self.skipped[str(path)] = str(error)
            self._unusable.add(id)
        else:
            self._path_of[id] = path
            self.utterances.append(Utterance(id, str(path), text, duration, speaker))

    def note_missing_audio(self, id: str, transcript: Path) -> None:
        """Notes a text whose recording is not there."""
        id = shown(id)
        self.skipped[id] = f"{id}: there is no such recording (its text is in {shown(transcript)})"

    def has(self, id: str) -> bool:
        """Whether there is a file of that id, usable or not."""
        return id in self._path_of or id in self._unusable

    def __add__(self, other: "Index") -> "Index":
        """Both, in order; of two with one id the first counts."""
        first = {u.id: u.path for u in self.utterances}
        new = [u for u in other.utterances if u.id not in first]
        twice = {
            u.path: f"{u.path}: has the same id as another ({first[u.id]})"
            for u in other.utterances
            if u.id in first
        }
        return Index(self.utterances + new, self.skipped | other.skipped | twice)


def cache_dir() -> Path:
    """A folder for derived files: ``$ASRLIB_CACHE``, else ``$XDG_CACHE_HOME/asrlib`` or its default.

    In a container that has no home for its user: one for temporary files.
    """
    if "ASRLIB_CACHE" in os.environ:
        return Path(os.environ["ASRLIB_CACHE"])
    if "XDG_CACHE_HOME" in os.environ:
        return Path(os.environ["XDG_CACHE_HOME"]) / "asrlib"
    try:
        return Path.home() / ".cache" / "asrlib"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"asrlib-{os.getuid()}"


def list_files(folder: Path) -> list[tuple[str, int, int]]:
    """(relative path, bytes, mtime in ns) of every file below ``folder``, sorted.

    Raises:
        FileNotFoundError: no such folder, with the absolute path that was tried.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.absolute()}: check the dataset's data_dir")
    found = []
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = os.path.join(root, name)
            try:
                stat = os.stat(path)
            except OSError:  # a link to nothing; the scan names it
                stat = os.lstat(path)
            found.append((os.path.relpath(path, folder), stat.st_size, stat.st_mtime_ns))
    return sorted(found)


def cached_index(folder: Path, layout: str, scan: Callable[[], Index]) -> Index:
    """The index of ``folder``, read from the cache if nothing in the folder changed.

    Args:
        layout: names the scanner and its options: part of the key.
        scan: builds the index.
    """
    folder = folder.absolute()
    state = repr((INDEX_VERSION, str(folder), layout, list_files(folder)))
    key = hashlib.blake2b(state.encode(), digest_size=12).hexdigest()
    path = cache_dir() / "index" / f"{folder.name}-{key}.jsonl"
    try:
        about, *rows = read_jsonl(path)
        return Index([Utterance(**row) for row in rows], about["skipped"])
    except (OSError, ValueError):  # not there yet, or not to be read
        index = scan()
    try:
        write_jsonl(path, [{"skipped": index.skipped}, *map(asdict, index.utterances)])
    except OSError as error:  # a full or read-only disk costs a scan, not the run
        print(f"index not cached in {path.parent}: {error}; set ASRLIB_CACHE to a writable folder")
    return index
