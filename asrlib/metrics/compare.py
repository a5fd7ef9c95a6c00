"""Two systems on the same utterances: is one better, and where did it help and harm?

python -m asrlib.metrics.compare BEFORE.jsonl AFTER.jsonl [--most 5] [--json FILE]

Both are tables that inference.py wrote (``inferencer.table_path``).

* The difference in WER has an interval by paired bootstrap: both systems are drawn with the same
  speakers (Bisani and Ney, ICASSP 2004), so what makes an utterance hard for both cancels out.
* The examples are chosen by rule, not by taste: most word errors gained or lost first, then by id.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from asrlib.files import read_jsonl, write_atomically
from asrlib.metrics.bootstrap import blocks
from asrlib.metrics.error_rate import ErrorRate, ScoredUtterance
from asrlib.randomness import generator


@dataclass(frozen=True)
class Pair:
    """One utterance as both systems heard it, with their word errors."""

    id: str
    reference: str
    before: str
    after: str
    errors_before: int
    errors_after: int


@dataclass(frozen=True)
class Comparison:
    """Corpus WERs in percent; ``difference`` is after − before, so less than 0 is better."""

    wer_before: float
    wer_after: float
    difference: float
    interval: tuple[float, float] | None  # 95 %, None with a single speaker
    probability_better: float | None  # share of the replicates in which after has the lower WER
    utterances: int
    fewer_errors: int  # utterances
    more_errors: int
    helped: list[Pair]
    harmed: list[Pair]


def compare(before: ErrorRate, after: ErrorRate, most: int = 5) -> Comparison:
    """Compares two systems that were scored on the same utterances, in any order.

    Args:
        most: how many pairs are shown of each kind.

    Raises:
        ValueError: the utterances, their references or their speakers differ.
    """
    first, second = ({u.id: u for u in errors.utterances} for errors in (before, after))
    if {id: u.reference for id, u in first.items()} != {
        id: u.reference for id, u in second.items()
    }:
        raise ValueError("the two systems were not scored on the same utterances and references")
    if any(u.speaker != second[id].speaker for id, u in first.items()):
        raise ValueError(
            "the two systems name other speakers, over whom the interval is: score both with the same "
            "speaker_pattern"
        )
    ids = sorted(first)
    pairs = [_pair(first[id], second[id]) for id in ids]
    interval, probability = _bootstrap([first[id] for id in ids], [second[id] for id in ids])
    better = [pair for pair in pairs if pair.errors_after < pair.errors_before]
    worse = [pair for pair in pairs if pair.errors_after > pair.errors_before]
    for changed in (better, worse):
        changed.sort(key=lambda pair: (-abs(pair.errors_after - pair.errors_before), pair.id))
    return Comparison(
        wer_before=before.wer,
        wer_after=after.wer,
        difference=after.wer - before.wer,
        interval=interval,
        probability_better=probability,
        utterances=len(pairs),
        fewer_errors=len(better),
        more_errors=len(worse),
        helped=better[:most],
        harmed=worse[:most],
    )


def _pair(before: ScoredUtterance, after: ScoredUtterance) -> Pair:
    return Pair(
        before.id,
        before.reference,
        before.hypothesis,
        after.hypothesis,
        before.words.total,
        after.words.total,
    )


def _bootstrap(
    before: Sequence[ScoredUtterance], after: Sequence[ScoredUtterance], replicates: int = 10_000
) -> tuple[tuple[float, float] | None, float | None]:
    """95 % interval of the difference, and the share of replicates below 0; same utterances in both."""
    (errors_before, words), (errors_after, _) = blocks(before).T, blocks(after).T
    n = len(words)
    if n < 2 or not words.any():
        return None, None
    draws = generator(0, "paired bootstrap").multinomial(n, np.full(n, 1 / n), size=replicates)
    drawn = draws @ words
    change = (draws @ (errors_after - errors_before))[drawn > 0] / drawn[drawn > 0]
    low, high = np.percentile(100.0 * change, [2.5, 97.5])
    return (float(low), float(high)), float((change < 0).mean())


def read_table(path: Path | str) -> ErrorRate:
    """The scored utterances of a table with ``utterance_id``, ``speaker``, ``target``, ``predict``.

    Raises:
        ValueError: no row has a target with words in it, or it is another kind of file.
    """
    errors = ErrorRate()
    for row in read_jsonl(Path(path)):
        if not {"target", "predict", "utterance_id", "speaker"} <= row.keys():
            raise ValueError(f"{path} is no table of hypotheses (inferencer.table_path)")
        if row["target"] is not None:
            errors.add(row["target"], row["predict"], row["utterance_id"], row["speaker"])
    if not errors.words.reference:
        raise ValueError(f"{path}: no utterance has a reference to compare with")
    return errors


def markdown(comparison: Comparison) -> str:
    """The comparison to read: a sentence, then the pairs."""
    c = comparison
    bounds = "" if c.interval is None else f" (95 % {c.interval[0]:+.2f} to {c.interval[1]:+.2f})"
    lines = [
        f"WER {c.wer_before:.2f} % → {c.wer_after:.2f} %: {c.difference:+.2f}{bounds}. Of "
        f"{c.utterances} utterances {c.fewer_errors} have fewer word errors, {c.more_errors} more.",
    ]
    for title, pairs in (("Helped", c.helped), ("Harmed", c.harmed)):
        lines += ["", f"**{title}**", "", "| | text | errors |", "|---|---|---|"]
        for pair in pairs:
            lines += [
                f"| {pair.id} | {pair.reference} | |",
                f"| before | {pair.before} | {pair.errors_before} |",
                f"| after | {pair.after} | {pair.errors_after} |",
            ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", help="table of one system")
    parser.add_argument("after", help="table of the other")
    parser.add_argument("--most", type=int, default=5, help="pairs shown of each kind")
    parser.add_argument("--json", help="file to write the comparison to")
    options = parser.parse_args(arguments)
    try:
        comparison = compare(read_table(options.before), read_table(options.after), options.most)
    except (OSError, ValueError) as error:
        sys.exit(f"compare: {error}")
    print(markdown(comparison))
    if options.json:
        text = json.dumps(asdict(comparison), indent=2, ensure_ascii=False)
        write_atomically(options.json, text + "\n")


if __name__ == "__main__":
    main()
