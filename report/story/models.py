"""The models: their numbers, how they learned, and what was tried."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf

from asrlib.result import Result
from report.story import figures
from report.story.evidence import (
    EXPERIMENTS,
    Picture,
    contrast,
    corpus,
    experiment,
    header,
    link,
    log_names,
    log_paths,
    logs,
    mean,
    measured,
    of,
    results_table,
    rows,
    table,
)

# (what was changed, the row before, the row after)
CONTRASTS = (
    (
        "running average of the weights, not the raw ones; last step",
        "an4-conformer-raw",
        "an4-conformer-last",
    ),
    ("the same, of CR-CTC", "an4-conformer-cr-raw", "an4-conformer-cr-last"),
    ("the step that is best on dev, not the last; averaged", "an4-conformer-last", "an4-conformer"),
    (
        "CR-CTC, not CTC, with as many frames and steps; best on dev",
        "an4-conformer",
        "an4-conformer-cr",
    ),
    ("the same, last step", "an4-conformer-last", "an4-conformer-cr-last"),
    ("begun with the weights of stage-two, not from nothing", "an4-conformer", "an4-shipped"),
    *(
        (
            f"augmentation of {what}, not none; {start}",
            f"{name}-augment-none",
            f"{name}-augment-{arm}",
        )
        for name, start in (
            ("an4", "after plain training"),
            ("mini", "after stage-two, which had both"),
        )
        for what, arm in (
            ("waveforms", "waveform"),
            ("spectrograms", "spectrogram"),
            ("both", "both"),
        )
    ),
)
LABELS = (("an4-deepspeech2", "an4-deepspeech2-bpe"), ("demo-char", "demo"))  # characters, pieces
# the same encoder, data and first weights: trained by CTC alone, and with a speller
SPELLERS = (
    ("an4-conformer", "an4-las", "120 epochs, 78"),
    ("an4-shipped", "an4-shipped-las", "15 epochs each"),
    ("shipped-ctc-3", "shipped-joint", "3 epochs each"),
)
CROSSED = ("beam+lm, cross-tuned", "joint+lm, cross-tuned")
PLACES = (
    "name=",
    "run_dir=",
    "experiment=",
    "datasets.root=",
)  # options that say where, or which of both


def headline() -> Iterator[str]:
    """What was reached, and on how much data."""
    published = rows("models")
    for test_data in dict.fromkeys(row.test_data for row in published):
        here = [row for row in rows("models", "decoders") if row.test_data == test_data]
        systems = dict.fromkeys((row.name, row.decoder) for row in here)
        best = min((of(here, name, test_data, decoder) for name, decoder in systems), key=_wer)
        row, low_high = best[0], "–".join(f"{x:.1f}" for x in figures.spread(best))
        how = (
            f"mean of {len(best)} seeds, {low_high}"
            if len(best) > 1
            else f"95 % interval {low_high}"
        )
        yield (
            f"- Lowest WER on **{test_data}**: **{_wer(best):.1f} %** ({how}) by `{row.name}` "
            f"with `{row.decoder}`, {row.parameters / 1e6:.1f} M parameters."
        )
    card = Path("checkpoints/shipped/README.md")
    if card.exists():
        name = OmegaConf.load(card.with_name("config.yaml")).name
        yield (
            f"**The model that is shipped** is `{name}`: its {link(card, 'card')} has data, licences and "
            f"limits, {link('report/shipped-samples.md', 'a table')} its best and worst dev utterances; its "
            "commands are in part 2, its learning curve in part 3."
        )
    yield "" + results_table("models")
    used = {name for row in published for name in (corpus(row), row.test_data.split()[0])}
    parts = [part for part in measured("corpora") if part["data"].rpartition(" ")[0] in used]
    if parts:
        yield "The data (a sentence counts as known if it stands word for word in train):"
        yield table(
            {
                "data": part["data"],
                "#utterances": part["utterances"],
                "#words": f"{part['words']:,}",
                "#minutes": f"{part['seconds'] / 60:.1f}",
                "#speakers": part["speakers"],
                "files": ", ".join(f"{n} {suffix}" for suffix, n in part["files"].items()),
                "#known sentences": ""
                if part["data"].endswith("train")
                else part["sentences_of_train"],
            }
            for part in parts
        )


def _wer(rows: list[Result]) -> float:
    return mean(row.wer for row in rows)


def curves() -> Iterator[str | Picture]:
    """Learning curves of the final models, then of all other trainings that have a log.

    Each of the final ones has a picture, of all seeds; others of one experiment share one, of a seed of each.
    """
    final = dict.fromkeys(row.name for row in rows("models"))
    if published := [name for name in final if name in log_names()]:
        yield "### The final models"
        for name in published:
            yield _told(name)
            found = {f"seed {seed}": log for seed, log in logs(name).items()}
            yield figures.training(name, found)
    made_by = {row.name: experiment(row) for row in rows("decoders", "ablations")}
    groups: dict[str, list[str]] = {}
    for name in log_names():
        if name not in final:
            groups.setdefault(made_by.get(name) or name, []).append(name)
    if groups:
        yield "### The others"
    for names in groups.values():
        yield from map(_told, names)
        if len(names) == 1:
            found = {f"seed {seed}": log for seed, log in logs(*names).items()}
        else:
            found = {name: next(iter(logs(name).values())) for name in names}
        yield figures.training(names[0], found)


def _told(name: str) -> str:
    """How long the trainings called ``name`` were, and where they ended."""
    last = [[row for row in log if "WER_val" in row][-1] for log in logs(name).values()]
    rates = ", ".join(f"{row['WER_val']:.1f}" for row in last)
    paths = ", ".join(map(link, log_paths(name).values()))
    return (
        f"`{name}`: {last[0]['step']:,} steps, {last[0]['epoch']} epochs; WER on dev at the end "
        f"{rates} % ({paths})."
    )


def ablations() -> Iterator[str]:
    """One change at a time: differences over seeds, then all rows."""
    found, entries = rows("models", "decoders", "ablations"), []
    for what, before, after in CONTRASTS:
        for test_data in dict.fromkeys(
            row.test_data for row in found if row.name in (before, after)
        ):
            pair = contrast(of(found, before, test_data), of(found, after, test_data))
            if pair is not None:
                entries.append(
                    {
                        "change": what,
                        "on": test_data,
                        "#seeds": len(pair.differences),
                        "#before": f"{_wer(pair.before):.2f}",
                        "#after": f"{_wer(pair.after):.2f}",
                        "difference (95 %)": pair.told,
                        "verdict": pair.verdict,
                    }
                )
    if entries:
        yield table(entries)
    plain, consistent = (of(found, n, "an4 test") for n in ("an4-conformer", "an4-conformer-cr"))
    if plain and consistent:
        seen = [of(found, f"{row.name}-last", "an4 test") for row in (plain[0], consistent[0])]
        worse = sum(_wer(consistent) > row.wer for row in plain)
        hours = " and ".join(f"{row[0].audio_hours_seen:.1f}" for row in seen if row)
        seeds = f"{len(consistent)} seed{'s' * (len(consistent) > 1)}"
        told = (
            f"CR-CTC reaches {_wer(consistent):.1f} % on AN4's test ({seeds}), which is "
            f"more than {worse} of the {len(plain)} trainings without it; they heard {hours} "
            "hours of audio, both views counted."
        )
        if worse == len(plain):
            told += (
                " At equal frames each utterance comes in half as many epochs, and consistency "
                "did not make up for it here."
            )
        yield told
    yield "All rows:\n\n" + results_table("ablations")


def spellers() -> Iterator[str]:
    """CTC against joint CTC and attention: the same encoder, first weights and data."""
    found, entries = rows("decoders"), []
    for ctc, joint, budget in SPELLERS:
        for without, with_lm in (("greedy", "joint"), ("beam+lm", "joint+lm"), CROSSED):
            for test_data in dict.fromkeys(row.test_data for row in found if row.name == joint):
                pair = of(found, ctc, test_data, without), of(found, joint, test_data, with_lm)
                if all(pair):
                    entries.append(
                        {
                            "CTC": f"`{ctc}`",
                            "joint": f"`{joint}`",
                            "budget": budget,
                            "on": test_data,
                            "decoders": f"{without}; {with_lm}",
                            "#CTC, WER %": f"{_wer(pair[0]):.2f}",
                            "#joint, WER %": f"{_wer(pair[1]):.2f}",
                        }
                    )
    if entries:
        yield table(entries)


def labels() -> Iterator[str]:
    """Characters against pieces of words (BPE)."""
    found, entries, caveats = rows("decoders"), [], []
    for characters, pieces in LABELS:
        here = [row for row in found if row.name == characters]
        for row in here:
            pair = contrast([row], of(found, pieces, row.test_data, row.decoder))
            if pair is None:
                continue
            entries.append(
                {
                    "on": row.test_data,
                    "decoder": row.decoder,
                    "#characters": _with_interval(pair.before[0]),
                    "#pieces": _with_interval(pair.after[0]),
                    "difference": pair.told,
                    "hours of training": f"{row.train_hours:.2f}, {pair.after[0].train_hours:.2f}",
                }
            )
        if here and (others := of(found, pieces, here[0].test_data)):
            caveats.append(_caveat(here[0], others[0]))
    if not entries:
        return
    yield table(entries)
    yield "Before these numbers are believed:"
    yield from caveats
    yield (
        "- The intervals are those of each row, by bootstrap over speakers. With one training "
        "each, what a seed is worth is not in them."
    )


def _with_interval(row: Result) -> str:
    low_high = "–".join(f"{x:.1f}" for x in row.wer_interval or ())
    return f"{row.wer:.1f}" + (f" ({low_high})" if low_high else "")


def _caveat(first: Result, second: Result) -> str:
    """What differs between two trainings beside the labels, as far as the rows tell."""
    one, other = ([w for w in _options(row) if not w.startswith(PLACES)] for row in (first, second))
    differing = [
        f"`{word}` in one of them alone"
        for word in (*one, *other)
        if (word in one) != (word in other)
    ]
    told = "; ".join(differing) or "no other option"
    commits = f"commits `{first.commit[:7]}` and `{second.commit[:7]}`"
    names = f"`{first.name}` and `{second.name}`"
    return f"- {names}: {commits}, {told}; what else differs, the experiments' files say."


def _options(row: Result) -> list[str]:
    return [word for word in shlex.split(row.command.split(" && ")[-2]) if "=" in word]


def notes() -> Iterator[str]:
    """What stands at the top of the experiments' files: why they are as they are, and what failed before."""
    run = {experiment(row) for row in rows("models", "decoders", "ablations")}
    for path in sorted(EXPERIMENTS.glob("*.yaml")):
        told = header(path.stem).replace("_", r"\_")
        without = "" if path.stem in run else " (no row yet)"
        quoted = "\n".join(f"> {line}".rstrip() for line in _as_markdown(told))
        yield f"{link(path)}{without}:\n\n{quoted}"


def _as_markdown(text: str) -> Iterator[str]:
    """Lists need an empty line before them."""
    lines = text.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("* ") and before and not before.startswith(("* ", "  ")):
            yield ""
        yield line
