"""What was tried: pairs of systems, and what was changed between them."""

from collections.abc import Iterator

from asrlib.result import Result
from report.story.evidence import (
    command_words,
    contrast,
    folded,
    mean,
    of,
    results_table,
    rows,
    table,
    wer_of,
)

# (what was changed, the row before, the row after)
STAGES = (  # the language model is the same before and after
    ("stage two: all speech and noise, after mini-LibriSpeech", "mini-librispeech", "stage-two"),
    (
        "stage two for two epochs, after seven of a larger model",
        "mini-seven",
        "mini-seven-stage-two",
    ),
    (
        "stage two for two epochs without masks and with less dropout, after the same seven",
        "mini-seven",
        "mini-seven-waveform",
    ),
)
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
    (
        "begun with the weights of stage-two, for an eighth of the epochs, not from nothing",
        "an4-conformer",
        "an4-shipped",
    ),
    *STAGES,
    (
        "this stage two without masks and with less dropout, not with them",
        "mini-seven-stage-two",
        "mini-seven-waveform",
    ),
    (
        "16 epochs more of five hours: more augmentation, larger batches, a new warm-up and cosine",
        "mini-seven",
        "mini-long",
    ),
    (
        "three epochs more, without augmentation, half the batch, less than half the rate",
        "mini-long",
        "mini-long-char",
    ),
    (
        "18 epochs more with changes of speed and masks alone, a new warm-up and cosine",
        "mini-long-char",
        "mini-heard",
    ),
    (
        "four epochs more, without augmentation, half the batch, half the rate",
        "mini-heard",
        "mini-longer",
    ),
    (
        "phones, too; also fewer augmentations, less dropout, another rate, five epochs less",
        "mini-librispeech",
        "mini-phones",
    ),
    (
        "three times the parameters, more dropout, six epochs more",
        "mini-phones",
        "mini-phones-short",
    ),
    ("the mean of the weights of the two before, not the last", "mini-longer", "mini-soup"),
    ("the mean of the weights of the two before, not the last", "mini-speed", "mini-mean"),
    (
        "eleven epochs more: half as much speech a step, a new warm-up and cosine",
        "flagship-ctc",
        "flagship-longer",
    ),
    (
        "eight epochs more, with half as much speech a step again",
        "flagship-longer",
        "flagship-longest",
    ),
    ("ten epochs more, with phones and less dropout", "flagship-longest", "flagship-phones"),
    ("seven epochs more of the same", "flagship-phones", "flagship-phones-longer"),
    (
        "the mean of the weights of the two before, not the last",
        "flagship-phones-longer",
        "flagship-phones-soup",
    ),
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
LABELS = (  # characters, pieces
    ("an4-char", "an4-bpe"),
    ("mini-char", "mini-bpe"),
    ("mini-long-char", "mini-long-bpe"),
    ("an4-deepspeech2", "an4-deepspeech2-bpe"),
    ("demo-char", "demo"),
)
# the same encoder, data and first weights: trained by CTC alone, and with a speller
SPELLERS = (
    ("an4-conformer", "an4-las", "120 epochs, 78"),
    ("an4-shipped", "an4-shipped-las", "15 epochs each"),
    ("shipped-ctc-3", "shipped-joint", "3 epochs each"),
    ("shipped-ctc-2", "shipped-joint-2", "2 epochs each"),
)
CROSSED = ("beam+lm, cross-tuned", "joint+lm, cross-tuned")
PLACES = (
    "name=",
    "run_dir=",
    "experiment=",
    "datasets.root=",
)  # options that say where, or which of both


def ablations() -> Iterator[str]:
    """Change by change: differences over seeds, then all rows."""
    found, entries = rows("models", "decoders", "ablations"), []
    changes = [(*change, "greedy") for change in CONTRASTS]
    changes += [(f"{what}; with a language model", *pair, CROSSED[0]) for what, *pair in STAGES]
    for what, before, after, decoder in changes:
        for test_data in dict.fromkeys(
            row.test_data for row in found if row.name in (before, after)
        ):
            pair = contrast(*(of(found, name, test_data, decoder) for name in (before, after)))
            if pair is not None:
                entries.append(
                    {
                        "change": what,
                        "on": test_data,
                        "#seeds": len(pair.differences),
                        "#before": f"{wer_of(pair.before):.2f}",
                        "#after": f"{wer_of(pair.after):.2f}",
                        "difference (95 %)": pair.told,
                        "verdict": pair.verdict,
                    }
                )
    if entries:
        yield table(entries)
    plain, consistent = (of(found, n, "an4 test") for n in ("an4-conformer", "an4-conformer-cr"))
    if plain and consistent:
        seen = [of(found, f"{row.name}-last", "an4 test") for row in (plain[0], consistent[0])]
        worse = sum(wer_of(consistent) > row.wer for row in plain)
        hours = " and ".join(f"{row[0].audio_hours_seen:.1f}" for row in seen if row)
        seeds = f"{len(consistent)} seed{'s' * (len(consistent) > 1)}"
        told = (
            f"CR-CTC: {wer_of(consistent):.1f} % on AN4's test ({seeds}). CTC alone is below that with "
            f"{worse} of {len(plain)} seeds. They heard {hours} hours of audio, both views counted."
        )
        if worse == len(plain):
            told += (
                " At equal frames each utterance comes in half as many epochs, and consistency "
                "did not make up for it here."
            )
        yield told
    yield folded("All rows", results_table("ablations"))


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
                            "#hours": ", ".join(f"{p[0].train_hours:.1f}" for p in pair),
                            "#CTC, WER %": f"{wer_of(pair[0]):.2f}",
                            "#joint, WER %": f"{wer_of(pair[1]):.2f}",
                        }
                    )
    if entries:
        yield table(entries)


def labels() -> Iterator[str]:
    """Characters against pieces of words (BPE): means over seeds, and the difference over them."""
    found, entries, caveats = rows("models", "decoders", "ablations"), [], []
    for characters, pieces in LABELS:
        here = [row for row in found if row.name == characters]
        for test_data, decoder in dict.fromkeys((row.test_data, row.decoder) for row in here):
            both = (of(found, name, test_data, decoder) for name in (characters, pieces))
            pair = contrast(*both)
            if pair is None:
                continue
            entries.append(
                {
                    "models": f"`{characters}`, `{pieces}`",
                    "on": test_data,
                    "decoder": decoder,
                    "#seeds": len(pair.differences),
                    "#characters": _with_interval(pair.before),
                    "#pieces": _with_interval(pair.after),
                    "difference (95 %)": pair.told,
                    "verdict": pair.verdict,
                    "hours of training": ", ".join(
                        f"{mean(row.train_hours for row in side):.2f}"
                        for side in (pair.before, pair.after)
                    ),
                }
            )
        if here and (others := of(found, pieces, here[0].test_data)):
            caveats.append(_caveat(here[0], others[0]))
    if not entries:
        return
    yield table(entries)
    yield "Before these numbers are believed:"
    yield from caveats
    if any(entry["#seeds"] == 1 for entry in entries):
        yield (
            "- With one seed, the interval beside a WER is that of its row, by bootstrap over speakers: "
            "what a seed is worth is not in it."
        )


def _with_interval(rows: list[Result]) -> str:
    """The mean; of a single row with its interval."""
    if len(rows) > 1 or not rows[0].wer_interval:
        return f"{wer_of(rows):.1f}"
    return "{:.1f} ({:.1f}–{:.1f})".format(rows[0].wer, *rows[0].wer_interval)


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
    return [word for word in command_words(row, -2) if "=" in word]
