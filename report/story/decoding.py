"""Decoders, what the language model changed, and where the errors are."""

import json
import re
from collections.abc import Iterator
from itertools import groupby

from asrlib.metrics.compare import Comparison, Pair
from asrlib.result import Result
from report.story import figures
from report.story.evidence import (
    ERRORS,
    FIGURES,
    Picture,
    command_words,
    comparisons,
    contrast,
    folded,
    link,
    measured,
    of,
    results_table,
    rows,
    shipped_name,
    signed,
    table,
)
from report.story.five_hours import errors_of

OURS, THEIRS = "beam+lm", "pyctcdecode+lm"
# decoders of one model that differ in limits and in the labels' prior
NARROW, WIDE, WITH_PRIOR = (f"beam+lm{kind}, cross-tuned" for kind in ("-narrow", "-wide", ""))
LIMITS = r"decoder\.(token_min_logp|beam_prune_logp)="
EXAMPLES = 3  # of each kind and model; the files have more


def decoders() -> Iterator[str | Picture]:
    """Decoders side by side, where one model has several: the rows, and what they show."""
    compared = {(row.name, row.test_data) for row in rows("decoders")}

    def is_compared(row: Result) -> bool:
        return (row.name, row.test_data) in compared

    found = [row for row in rows("decoders", "models") if is_compared(row)]
    systems: dict[str, dict[str, list[Result]]] = {}
    for row in found:
        here = systems.setdefault(f"{row.name}\n{row.test_data}", {})
        here[row.decoder] = of(found, row.name, row.test_data, row.decoder)
    order = sorted(
        systems,
        key=lambda name: (
            name.split("\n")[1],
            min(r.wer for rows in systems[name].values() for r in rows),
        ),
    )
    for corpus, names in groupby(order, lambda name: re.split(r"\W", name.split("\n")[1])[0]):
        yield figures.decoders(corpus, {name: systems[name] for name in names})
    yield (
        "Points are WERs, means where a model has several seeds. Bars are the 95 % interval of a "
        "single training, and the range of the seeds where there are several."
    )
    yield from _findings(list(systems.values()))
    yield from _limits(rows("models", "decoders"))
    yield folded("All rows", results_table("decoders", "models", which=is_compared))


def _findings(systems: list[dict[str, list[Result]]]) -> Iterator[str]:
    """What the rows of some models say about our beam, without and with a language model."""
    beam = [p.mean for s in systems if (p := contrast(s.get("greedy", []), s.get("beam", [])))]
    if beam:
        fewer = sum(difference < 0 for difference in beam)
        yield (
            "- Without a language model the beam search has a lower WER than greedy decoding "
            f"with {fewer} of {len(beam)} models; the difference is {signed(min(beam))} to "
            f"{signed(max(beam))} points."
        )
    peers = [p.mean for s in systems if (p := contrast(s.get(THEIRS, []), s.get(OURS, [])))]
    if peers:
        yield (
            "- With the same language model our search and pyctcdecode, each with weights tuned "
            f"on dev, differ by {signed(min(peers))} to {signed(max(peers))} points (less than 0: "
            "ours is lower)."
        )


def _limits(found: list[Result]) -> Iterator[str]:
    """What limits of the search and the labels' prior are worth: rows of a model that differ in them."""
    for narrow in found:
        if narrow.decoder != NARROW:
            continue
        wide, shipped = (of(found, narrow.name, narrow.test_data, d) for d in (WIDE, WITH_PRIOR))
        if not (wide and shipped):
            continue
        limits = ", ".join(f"`{w}`" for w in command_words(wide[0]) if re.match(LIMITS, w))
        yield (
            f"- `{narrow.name}` on {narrow.test_data}: with wider limits ({limits}) the WER of beam search "
            f"with a language model is {wide[0].wer:.2f} % instead of {narrow.wer:.2f}, and "
            f"{shipped[0].wer:.2f} where the labels' prior is divided out as well: what a recogniser of "
            "little speech is not sure of must be tried, and it says frequent letters too often. "
            "Within their grids, weights are cross-tuned."
        )


def pairs() -> Iterator[str]:
    """What the language model changed on test: differences with intervals, then examples of both kinds."""
    found = comparisons()
    if not found:
        return
    yield table(
        {
            "model": name,
            "seed (of one training)": ", ".join(map(str, _seeds(name, c))) or "unknown",
            "#greedy": f"{c.wer_before:.2f}",
            "#with LM": f"{c.wer_after:.2f}",
            "#difference": signed(c.difference),
            "95 %": "" if c.interval is None else " to ".join(map(signed, c.interval)),
            "#utterances": c.utterances,
            "#fewer errors": c.fewer_errors,
            "#more errors": c.more_errors,
        }
        for name, c in found.items()
    )
    surely = sum(c.interval is not None and c.interval[1] < 0 for c in found.values())
    yield (
        f"The interval (paired bootstrap over speakers) lies below 0 for {surely} of {len(found)} "
        f"models. In all, {sum(c.fewer_errors for c in found.values())} utterances have fewer "
        f"word errors with the language model, {sum(c.more_errors for c in found.values())} have "
        "more."
    )
    for name, c in found.items():
        yield f"#### {name}: helped\n\n{_pairs_table(c.helped[:EXAMPLES])}"
        if c.harmed:
            yield f"#### {name}: harmed\n\n{_pairs_table(c.harmed[:EXAMPLES])}"
        else:
            yield f"#### {name}: harmed\n\nNone."


def _seeds(name: str, c: Comparison) -> list[int | None]:
    """Of the trainings whose greedy row has the WER that was compared."""
    found = rows("models", "decoders")
    decoded = [row for row in found if (row.name, row.decoder) == (name, "greedy")]
    return sorted({row.seed for row in decoded if abs(row.wer - c.wer_before) < 1e-9})


def _pairs_table(chosen: list[Pair]) -> str:
    entries = []
    for pair in chosen:
        entries += [
            {"utterance": pair.id, "": "reference", "text": pair.reference, "#errors": ""},
            {"utterance": "", "": "greedy", "text": pair.before, "#errors": pair.errors_before},
            {"utterance": "", "": "with LM", "text": pair.after, "#errors": pair.errors_after},
        ]
    return table(entries)


def decoder_speed() -> Iterator[str]:
    """Decoders with a language model side by side, from bench-decode.json: each time that it was run."""
    times: dict[tuple, list[dict]] = {}
    for row in measured("bench-decode"):
        times.setdefault((row["model"], row["data"], row["commit"]), []).append(row)
    for found in times.values():
        first = found[0]
        yield (
            f"`{first['model']}` on {first['data']} ({first['utterances']} utterances, "
            f"{first['audio_seconds']:.0f} s of speech), {first['threads']} thread, width "
            f"{first['beam_width']}, α = {first['alpha']:g}, β = {first['beta']:g}; commit "
            f"`{first['commit'][:10]}` of {first['date'][:10]}:"
        )
        yield table(
            {
                "decoder": row["decoder"],
                "#WER %": f"{row['wer']:.2f}",
                "#CPU seconds": f"{row['seconds']:.3f}",
                "#times ours": f"{row['ratio_to_asrlib']:.1f}",
                "#loading, s": f"{row['seconds_loading']:.1f}",
                "#peak MB": f"{row['peak_mb']:.0f}",
            }
            for row in found
        )


def errors() -> Iterator[str]:
    """Which kinds of errors each row has; and what ``report.errors`` found in tables of hypotheses."""
    yield table(
        {
            "model": f"{row.system} {row.name}",
            "on": row.test_data,
            "decoder": row.decoder,
            "seed": "" if row.seed is None else row.seed,
            "#substitutions": row.substitutions,
            "#deletions": row.deletions,
            "#insertions": row.insertions,
            "#of words": row.words,
            "#CER / WER": f"{row.cer / row.wer:.2f}" if row.wer else "",
        }
        for row in rows("models")
    )
    yield from errors_of("shipped", shipped_name())
    for path in sorted(ERRORS.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        yield f"### {path.stem}"
        rates = f"WER {found['wer']:.2f} %, CER {found['cer']:.2f} %"
        yield f"{rates}, {found['utterances']} utterances ({link(path)})."
        tables = []
        for title, name in (
            ("By the length of the reference, in words", "by_length"),
            ("By the rate of speech", "by_rate"),
            ("By speaker, the worst first", "by_speaker"),
            ("Words by how often they are in the texts of the training", "by_familiarity"),
            ("Substituted words by how far they are from what was said", "by_letters"),
            ("The most frequent errors (an empty cell: nothing)", "confusions"),
        ):
            if entries := found[name]:
                tables.append(f"{title}:\n\n{table(_rounded(entry) for entry in entries)}")
        yield folded("The tables", *tables)


def _rounded(entry: dict) -> dict:
    return {
        key if isinstance(value, str) else f"#{key}": f"{value:.1f}"
        if isinstance(value, float)
        else value
        for key, value in entry.items()
    }


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def attention() -> Iterator[str | Picture]:
    """Where the speller looked: what was measured on dev, and pictures, if there are any."""
    measures, found = measured("attention"), sorted((FIGURES / "attention").glob("*.png"))
    if measures or found:
        yield "### Attention"
    if measures:
        yield (
            "`python -m report.attention`: the true labels are given. A step is in order if it looks, "
            "most of all, at no earlier frame than the last; an utterance is, if 95 % of its steps "
            "are. To look at one frame all the time is in order, too: hence the pictures. CTC's time of a "
            "label is that of its best path; without CTC in the loss there is none."
        )
        yield table(
            {
                "model": f"`{row['name']}`",
                "data": row["test_data"],
                "#utterances": row["utterances"],
                "#steps in order, %": f"{100 * row['steps_in_order']:.1f}",
                "#utterances in order, %": f"{100 * row['utterances_in_order']:.1f}",
                "#from CTC's time, median, s": _seconds(row["median_seconds_from_ctc"]),
                "#90 % within, s": _seconds(row["p90_seconds_from_ctc"]),
            }
            for row in measures
        )
    if found:
        yield "Each row of a picture is a label, each column an encoder frame; red is CTC's time."
        for path in found:
            yield Picture(path, f"Attention: {path.stem}")
