"""Corpora in LibriSpeech's layout: ``PART/SPEAKER/CHAPTER/ID.flac`` and ``SPEAKER-CHAPTER.trans.txt``.

Panayotov et al., "LibriSpeech: an ASR corpus based on public domain audio books", ICASSP 2015. The
part may have any name and the audio any ending in ``AUDIO_SUFFIXES``.
"""

from collections.abc import Sequence
from pathlib import Path

from asrlib.data.audio import is_audio
from asrlib.data.utterance import Index, cached_index
from asrlib.files import shown


def read_transcripts(path: Path) -> dict[str, str]:
    """{utterance id: text} of one ``.trans.txt`` file: an id, a space and the words on each line."""
    # not at what else splitlines() takes for an end
    lines = path.read_text("utf-8", "replace").split("\n")
    return dict((*line.split(maxsplit=1), "")[:2] for line in lines if line.strip())


def _scan_part(part: Path) -> Index:
    index = Index()
    for chapter in sorted(path for path in part.glob("*/*") if path.is_dir()):
        texts: dict[str, str] = {}
        listed_in: dict[str, Path] = {}
        for path in sorted(chapter.glob("*.trans.txt")):
            texts |= (found := read_transcripts(path))
            listed_in |= dict.fromkeys(found, path)
        for path in sorted(filter(is_audio, chapter.iterdir())):
            if path.stem in texts:
                index.add(path.stem, path, texts[path.stem], speaker=chapter.parent.name)
            else:
                name = shown(path)
                index.skipped[name] = f"{name}: not in the chapter's .trans.txt"
        for id, path in listed_in.items():
            if not index.has(id):
                index.note_missing_audio(id, path)
    return index


def librispeech_index(data_dir: Path | str, parts: Sequence[str]) -> Index:
    """Index of one or more parts below ``data_dir``, such as ``["train-clean-100", "dev-clean"]``.

    Raises:
        FileNotFoundError: a part is missing; the message lists those that are there.
        ValueError: a part is named twice, or holds no audio in LibriSpeech's layout.
    """
    if len(set(parts)) < len(parts):
        raise ValueError(f"a part is named twice in {list(parts)}")
    index = Index()
    for name in parts:
        part = Path(data_dir).absolute() / name  # the cached paths must hold in any folder
        if not part.is_dir():
            there = sorted(p.name for p in Path(data_dir).glob("*") if p.is_dir())
            raise FileNotFoundError(
                f"no part {name!r} in {Path(data_dir).absolute()}; there are {there}"
            )
        found = cached_index(part, "librispeech", lambda part=part: _scan_part(part))
        if not found.utterances:
            raise ValueError(f"{part.absolute()}: no SPEAKER/CHAPTER/ID audio files in it")
        index += found
    return index
