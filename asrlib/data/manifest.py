"""A JSON-lines manifest: one object a line with ``path`` and, if known, ``id text speaker duration``."""

import json
from pathlib import Path

from asrlib.data.utterance import Index, Utterance


def manifest_index(path: Path | str) -> Index:
    """Index of a manifest; relative audio paths start from the manifest's folder.

    Raises:
        ValueError: a line that is no JSON object with a ``path``, or an id that comes twice.
    """
    path = Path(path)
    index, seen = Index(), set()
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            audio = path.parent / row["path"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: no JSON object with a path") from error
        id = row.get("id", audio.stem)
        if id in seen:
            raise ValueError(f"{path}, line {number}: the id {id!r} comes twice")
        seen.add(id)
        if row.get("duration"):
            index.utterances.append(
                Utterance(id, str(audio), row.get("text"), row["duration"], row.get("speaker"))
            )
        else:
            index.add(id, audio, row.get("text"), row.get("speaker"))
    return index
