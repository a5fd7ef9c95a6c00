"""Ten utterances that were heard best and ten that were heard worst, by a rule.

python -m report.samples TABLE.jsonl OUT.md TITLE    TABLE is what inference.py wrote (inferencer.table_path)

The rule: utterances of at least ``WORDS`` words, by WER; among equals the longer first, then by id.
"""

import sys

from asrlib.files import write_atomically
from asrlib.metrics import ScoredUtterance
from asrlib.metrics.compare import read_table

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
    errors = read_table(source)
    best, worst = choose(errors.utterances)
    about = (
        f"Of {len(errors.utterances)} utterances, WER {errors.wer:.1f} %, those of {WORDS} words or more; "
        "among equals the longer first."
    )
    parts = [f"# {title}", about, "## Best", table(best), "## Worst", table(worst)]
    write_atomically(out, "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
