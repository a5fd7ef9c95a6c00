"""A folder of recordings that augmentations draw from."""

import hashlib
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from asrlib.data.audio import AudioError, audio_info, is_audio, read_audio


@lru_cache(maxsize=32)
def _read(path: str) -> np.ndarray:
    return read_audio(path)


class Recordings:
    """The audio files below a folder, hidden ones apart.

    Args:
        data_dir: the folder.
        files: those that match one of these patterns, relative to it: ["rain.flac", "street/**/*"].

    Raises:
        FileNotFoundError: a pattern matches no audio file.
        AudioError: one has a header that cannot be read.
        ValueError: ``files`` is a text instead of a list.
    """

    def __init__(self, data_dir: str, files: Sequence[str]):
        if isinstance(files, str):
            raise ValueError(f"files={files!r}: a list of patterns, such as [{files!r}]")
        root, found = Path(data_dir), set()
        for pattern in files:
            matching = {
                path
                for path in root.glob(pattern)
                if is_audio(path) and not path.name.startswith(".")
            }
            if not matching:
                raise FileNotFoundError(f"no audio files {pattern} in {root.absolute()}")
            found |= matching
        if not found:
            raise FileNotFoundError(f"no audio files asked for in {root.absolute()}: files=[]")
        self.root, self.paths = root, sorted(map(str, found))
        for path in self.paths:  # now, not in the middle of a training
            audio_info(path)
        self._unreadable: set[str] = set()

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One of them, float32 [n] at 16 kHz; not to be written to.

        One that has a header and cannot be read is named, and another is drawn.

        Raises:
            AudioError: none of them can be read.
        """
        while True:
            path = self.paths[rng.integers(len(self.paths))]
            try:
                return _read(path)
            except AudioError as error:
                if path not in self._unreadable:
                    self._unreadable.add(path)
                    print(f"left out of what augments: {error}", file=sys.stderr)
                if len(self._unreadable) == len(self.paths):
                    raise

    def __repr__(self) -> str:
        """Changes with the names and sizes of the files, not with where the folder is."""
        facts = [(str(Path(p).relative_to(self.root)), Path(p).stat().st_size) for p in self.paths]
        digest = hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()
        return f"{len(self.paths)} recordings ({digest})"
