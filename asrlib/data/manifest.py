"""A JSON-lines manifest: one object a line with ``path`` and, if known, ``id text speaker duration``."""

import json
import math
from pathlib import Path

from asrlib.data.utterance import Index, Utterance
from asrlib.files import read_text


def manifest_index(path: Path | str) -> Index:
    """Index of a manifest; relative audio paths start from the manifest's folder.

    Raises:
        ValueError: a line that is no JSON object with a ``path``, a duration that is no number of seconds, or
            an id that comes twice.
    """
    path = Path(path)
    index, seen = Index(), set()
    for number, line in enumerate(read_text(path).split("\n"), start=1):
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
        text, speaker, duration = (row.get(key) for key in ("text", "speaker", "duration"))
        if duration is None:
            index.add(id, audio, text, speaker)
        elif isinstance(duration, (int, float)) and 0 < duration < math.inf:
            index.utterances.append(Utterance(id, str(audio), text, float(duration), speaker))
        else:
            raise ValueError(
                f"{path}, line {number}: duration={duration!r} is no number of seconds"
            )
    return index
