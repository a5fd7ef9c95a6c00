"""Ten utterances that were heard best and ten that were heard worst, by a rule.

python -m report.samples TABLE.jsonl OUT.md TITLE    TABLE is what inference.py wrote (inferencer.table_path)

The rule: utterances of at least ``WORDS`` words, by WER; among equals the longer first, then by id.
"""

import sys
from pathlib import Path

from asrlib.files import read_jsonl, write_atomically
from asrlib.metrics import ScoredUtterance, score_utterance

WORDS, COUNT = 8, 10


def choose(scored: list[ScoredUtterance]) -> tuple[list[ScoredUtterance], list[ScoredUtterance]]:
    """(the best, the worst), each ``COUNT`` or as many as there are, without one in both."""
    long = [u for u in scored if u.words.reference >= WORDS]
    order = sorted(long, key=lambda u: (u.words.rate, -u.words.reference, u.id))
    best = order[:COUNT]
    worst = sorted(order[COUNT:], key=lambda u: (-u.words.rate, -u.words.reference, u.id))
    return best, worst[:COUNT]


def table(rows: list[ScoredUtterance]) -> str:
    lines = ["| utterance | WER % | CER % | target | predict |", "|---|---|---|---|---|"]
    for u in rows:
        rates = f"{u.words.rate:.0f} | {u.characters.rate:.0f}"
        lines.append(f"| {u.id} | {rates} | {u.reference} | {u.hypothesis} |")
    return "\n".join(lines)


def main(source: str, out: str, title: str) -> None:
    rows = read_jsonl(Path(source))
    scored = [
        score_utterance(row["target"], row["predict"], row["utterance_id"], row["speaker"])
        for row in rows
        if row["target"] is not None
    ]
    best, worst = choose(scored)
    words, edits = (sum(getattr(u.words, x) for u in scored) for x in ("reference", "total"))
    about = (
        f"Of {len(scored)} utterances, WER {100 * edits / words:.1f} %, those of {WORDS} words or more; "
        "among equals the longer first."
    )
    parts = [f"# {title}", about, "## Best", table(best), "## Worst", table(worst)]
    write_atomically(out, "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
