"""Common Voice as downloaded: ``LANGUAGE/{train,dev,test,validated,…}.tsv`` and ``LANGUAGE/clips/*.mp3``.

Ardila et al., "Common Voice: a massively-multilingual speech corpus", LREC 2020. Columns come and go
from one release to the next; they are found by name, and only client_id, path and sentence are needed.
Quotes are characters like any other: the files have no quoting, and many sentences hold a single ``"``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from asrlib.data.utterance import Index, Utterance, cached_index

DURATIONS = "clip_durations.tsv"
NEEDED = ("client_id", "path", "sentence")


def read_tsv(path: Path) -> Iterator[tuple[int, dict[str, str] | None]]:
    """(line number, {column: value}) of every row; None for a row with more or fewer values than columns."""
    with path.open(encoding="utf-8", newline="\n") as lines:  # no other character ends a row
        columns = next(lines, "").rstrip("\r\n").split("\t")
        for number, line in enumerate(lines, start=2):
            values = line.rstrip("\r\n").split("\t")
            yield (
                number,
                dict(zip(columns, values, strict=True)) if len(values) == len(columns) else None,
            )


def _durations(path: Path) -> dict[str, float]:
    """{clip: seconds} of ``clip_durations.tsv``, which has milliseconds."""
    return {row["clip"]: float(row["duration[ms]"]) / 1000 for _, row in read_tsv(path) if row}


def _scan(data_dir: Path, part: str, apart_from: Sequence[str]) -> Index:
    held_out = {column: set() for column in NEEDED}
    for other in apart_from:
        for _, row in read_tsv(data_dir / f"{other}.tsv"):
            for column, values in held_out.items():
                if row and row[column]:
                    values.add(row[column])
    listed = data_dir / DURATIONS
    durations = _durations(listed) if listed.exists() else {}
    clips, index = data_dir / "clips", Index()
    there = {path.name for path in clips.iterdir()}
    for number, row in read_tsv(tsv := data_dir / f"{part}.tsv"):
        if row is None:
            key = f"{tsv}, line {number}"
            index.skipped[key] = f"{key}: not as many values as columns"
            continue
        id, path = Path(row["path"]).stem, clips / row["path"]
        shared = [column for column, values in held_out.items() if row[column] in values]
        if shared:
            index.skipped[id] = f"{id}: dev or test have its {shared[0]}"
        elif path.name not in there:
            index.skipped[id] = f"{id}: there is no such recording (its text is in {tsv})"
        elif seconds := durations.get(path.name):  # some are listed as 0: their headers know better
            index.utterances.append(
                Utterance(id, str(path), row["sentence"], seconds, row["client_id"])
            )
        else:
            index.add(id, path, row["sentence"], row["client_id"])
    return index


def common_voice_index(
    data_dir: Path | str, part: str, apart_from: Sequence[str] = ("dev", "test")
) -> Index:
    """Index of ``part``.

    Args:
        data_dir: the language's folder, ``cv-corpus-VERSION/en``.
        apart_from: parts whose clips, speakers and sentences are left out, where they have a TSV:
            ``validated`` holds ``dev`` and ``test``, and more by their speakers.

    Raises:
        FileNotFoundError: no ``part.tsv`` or no ``clips`` there.
        ValueError: a column that is needed is not in ``part.tsv``.
    """
    data_dir = Path(data_dir).absolute()
    tsv = data_dir / f"{part}.tsv"
    if not (tsv.is_file() and (data_dir / "clips").is_dir()):
        there = sorted(path.stem for path in data_dir.glob("*.tsv"))
        raise FileNotFoundError(
            f"no {part}.tsv beside clips in {data_dir}; there are {there}: data_dir is the folder of the "
            "language, cv-corpus-VERSION/en"
        )
    with tsv.open(encoding="utf-8") as file:
        columns = file.readline().split()
    if missing := set(NEEDED) - set(columns):
        raise ValueError(f"{tsv}: no column {sorted(missing)} among {columns}")
    others = [o for o in apart_from if o != part and (data_dir / f"{o}.tsv").is_file()]
    if (data_dir / DURATIONS).is_file():
        # faster than to look at each clip for a cache's key
        return _scan(data_dir, part, others)
    layout = f"common_voice {part} {others}"
    return cached_index(data_dir, layout, lambda: _scan(data_dir, part, others))
