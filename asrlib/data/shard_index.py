"""The index of shards, which ``asrlib.data.shards`` writes."""

from pathlib import Path

from asrlib.data.utterance import Index, Utterance
from asrlib.files import read_jsonl

INDEX = "index.jsonl"


def shard_index(data_dir: Path | str) -> Index:
    """Index of the shards in ``data_dir``, where nothing is written.

    Raises:
        FileNotFoundError: no index there, as where the preparation has not come to its end.
        ValueError: a shard is missing, or not as long as it was.
    """
    data_dir = Path(data_dir).absolute()
    if not (data_dir / INDEX).is_file():
        raise FileNotFoundError(
            f"no {INDEX} in {data_dir}: it is written last, so if there are shards, their preparation "
            "was interrupted; the same command (python -m asrlib.data.shards …) goes on"
        )
    about, *rows = read_jsonl(data_dir / INDEX)
    for name, size in about["bytes"].items():
        path = data_dir / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            raise ValueError(
                f"{path} has {found} bytes, was written with {size}: copy it again, or remove the "
                "folder and prepare it anew (python -m asrlib.data.shards)"
            )
    return Index(
        [Utterance(**row | {"path": f"{data_dir}/{row['path']}"}) for row in rows],
        about["skipped"],
    )
