"""Where a model errs, in numbers: python -m report.errors TABLE.jsonl NAME [datasets=… datasets.root=DIR]

TABLE is what inference.py wrote (``inferencer.table_path``), whose recordings are still where they were.
report/errors/NAME.json gets WER by length, by speaker and by rate of speech, how far wrong words are from
what was said, and the most frequent errors; of the texts no more than their single words. With the data that
the model was trained on also how many words are wrong, by how often they are in its texts.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from asrlib.build import build
from asrlib.configs import compose
from asrlib.data.audio import audio_info
from asrlib.files import read_jsonl, write_atomically
from asrlib.metrics.analysis import (
    by_familiarity,
    by_length,
    by_letters,
    by_rate,
    by_speaker,
    confusions,
)
from asrlib.metrics.compare import read_table
from asrlib.result import provenance

OUT = Path("report/errors")


def main(source: str, name: str, *data: str) -> None:
    errors = read_table(source)
    seconds = {
        row["utterance_id"]: audio_info(row["audio_path"]).duration
        for row in read_jsonl(Path(source))
    }
    trained_on = (
        build(compose("train", *data).datasets.train, training=True).utterances if data else []
    )
    found = {
        "wer": errors.wer,
        "cer": errors.cer,
        "utterances": len(errors.utterances),
        "words": asdict(errors.words),
        "by_length": by_length(errors),
        "by_rate": by_rate(errors, seconds),
        "by_speaker": by_speaker(errors),
        "by_familiarity": by_familiarity(errors, (u.text for u in trained_on)) if data else [],
        "by_letters": by_letters(errors),
        "confusions": confusions(errors),
        **provenance(),
    }
    write_atomically(OUT / f"{name}.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
