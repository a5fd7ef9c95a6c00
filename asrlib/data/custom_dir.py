"""Any folder of audio: ``DIR/audio/ID.*`` and, where known, ``DIR/transcriptions/ID.txt``.

The course's layout for data that the grader brings. Endings may be in upper case; transcripts may
be missing for some files or for all. Every file in ``audio`` that is not hidden is expected to be a
recording; one that libsndfile cannot read is left out by name.
"""

from pathlib import Path

from asrlib.data.utterance import Index, cached_index
from asrlib.files import composed, read_text, shown, speaker_of, texts_by_id


def _scan(data_dir: Path, speaker_pattern: str | None) -> Index:
    index, transcripts, heard = Index(), texts_by_id(data_dir / "transcriptions"), set()
    for path in sorted((data_dir / "audio").iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if any(inside.is_file() for inside in path.rglob("*")):
                name = shown(path)
                index.skipped[name] = f"{name}: a folder: recordings belong into audio itself"
            continue
        text, id = None, composed(path.stem)
        heard.add(id)
        if transcript := transcripts.get(id):
            try:
                text = read_text(transcript).strip()
            except OSError as error:
                name = shown(transcript)
                index.skipped[name] = f"{name}: not readable ({error})"
        index.add(path.stem, path, text, speaker_of(path.stem, speaker_pattern))
    for id, transcript in transcripts.items():
        if id not in heard:
            index.note_missing_audio(id, transcript)
    return index


def custom_dir_index(data_dir: Path | str, speaker_pattern: str | None = None) -> Index:
    """Index of ``data_dir``.

    Args:
        speaker_pattern: a regular expression whose first group is the speaker within an id, for
            intervals over speakers; AN4's ``an391-mjwl-b`` takes ``-(.+)-``.

    Raises:
        FileNotFoundError: no folder ``data_dir/audio``.
    """
    data_dir = Path(data_dir).absolute()  # the cached paths must hold in any folder
    if not (data_dir / "audio").is_dir():
        raise FileNotFoundError(
            f"no folder {(data_dir / 'audio').absolute()}: "
            "a custom dataset keeps its recordings in DIR/audio and its texts in DIR/transcriptions"
        )
    layout = f"custom_dir {speaker_pattern}"
    return cached_index(data_dir, layout, lambda: _scan(data_dir, speaker_pattern))
