"""What the data of the published rows are: python -m report.corpora PARTS DATASET [DATASET…]

    python -m report.corpora train,val,test datasets=an4 datasets.root=data/an4

PARTS of train, val and test, as the configuration of the data set calls them. Each gets a row in
report/corpora.json: how much there is, in which files, and how many of its sentences stand word for word in
train, so that limits of the data are counted, not remembered. The ids of its utterances are in
report/utterances, of a mixture in a file for each of its parts, for the option ``only`` of a data set: so
what was used can be had of the whole corpora.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from omegaconf import OmegaConf

from asrlib.build import build
from asrlib.configs import compose
from asrlib.data import Utterance
from asrlib.files import write_atomically

OUT = Path("report/corpora.json")
LISTS = Path("report/utterances")


def describe(name: str, utterances: list[Utterance], train: list[Utterance]) -> dict:
    """The row of a part ``name``, with what it shares with ``train``; texts are normalised."""
    texts, speakers = {u.text for u in train}, {u.speaker for u in train}
    return {
        "data": name,
        "utterances": len(utterances),
        "words": sum(len(u.text.split()) for u in utterances),
        "seconds": round(sum(u.duration for u in utterances), 1),
        "speakers": len({u.speaker for u in utterances} - {None}),  # those whose name is known
        "files": dict(Counter(Path(u.path).suffix.lstrip(".").lower() for u in utterances)),
        "sentences_of_train": sum(u.text in texts for u in utterances),
        "speakers_of_train": len({u.speaker for u in utterances} & speakers),
    }


def lists(name: str, utterances: list[Utterance]) -> dict[str, str]:
    """{name of a file: its lines}; what a mixture writes before an id names the file instead."""
    ids: dict[str, list[str]] = {}
    for utterance in utterances:
        part, slash, id = utterance.id.rpartition("/")
        ids.setdefault(f"{name}-{part}" if slash else name, []).append(id)
    return {f"{file}.txt": "\n".join(sorted(found)) + "\n" for file, found in ids.items()}


def main(parts: str, *overrides: str) -> None:
    config = compose("train", *overrides)
    OmegaConf.resolve(config)
    corpus = config.datasets.name
    found = {
        part: build(config.datasets[part]).utterances
        for part in dict.fromkeys(["train", *parts.split(",")])
    }
    rows = [
        describe(f"{corpus} {p}", utterances, found["train"]) for p, utterances in found.items()
    ]
    for part, utterances in found.items():
        for file, text in lists(f"{corpus}-{part}", utterances).items():
            write_atomically(LISTS / file, text)
    if OUT.exists():
        others = [r for r in json.loads(OUT.read_text()) if r["data"].rpartition(" ")[0] != corpus]
        rows = sorted([*others, *rows], key=lambda row: row["data"].rpartition(" ")[0])
    write_atomically(OUT, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
