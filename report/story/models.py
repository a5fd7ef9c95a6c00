"""The models: their numbers, how to make them again, how they learned, and what was tried."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from asrlib.result import Result
from report.story import figures
from report.story.evidence import (
    EXPERIMENTS,
    Picture,
    code,
    commands,
    contrast,
    experiment,
    files,
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
    wrapped,
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
)
LABELS = (("an4-deepspeech2", "an4-deepspeech2-bpe"), ("demo-char", "demo"))  # characters, pieces
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
    yield "" + results_table("models")
    used = {name for row in published for name in (row.train_data, row.test_data.split()[0])}
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


def recipes() -> Iterator[str]:
    """How each published model is trained, as its experiment's configuration says."""
    entries = []
    for row in {row.name: row for row in [*rows("models"), *rows("decoders")]}.values():
        if (name := experiment(row)) is None:
            continue
        config = compose_train(f"experiment={name}", "datasets.root=DIR")
        encoder, length = config.text_encoder, f"{config.trainer.epochs} epochs"
        entries.append(
            {
                "model": f"`{row.name}`",
                "training": f"{length} of {link(EXPERIMENTS / f'{name}.yaml', f'experiment={name}')}",
                "network": f"{_class(config.model)} {config.model.get('size', '')}",
                "loss": _loss(config.loss),
                "labels": f"{encoder.vocabulary_size} pieces"
                if encoder.kind == "bpe"
                else "characters",
                "#batch, s": config.trainer.batch_seconds,
                "#learning rate": f"{config.optimizer.lr:g}",
                "average": config.trainer.average or "none",
                "augmented from epoch": config.augmentations.from_epoch,
            }
        )
    yield table(entries)


def _loss(section: DictConfig) -> str:
    """The name of a loss, and what stands beside it with which weight."""
    names = ("attention", "intermediate", "consistency")
    weights = [f"{section[name]:g} {name}" for name in names if section.get(name)]
    return " + ".join([_class(section).removesuffix("Loss"), *weights])


def compose_train(*overrides: str) -> DictConfig:
    """The configuration of ``train.py``, not resolved."""
    with initialize_config_module("asrlib.configs", version_base=None):
        return compose("train", list(overrides))


def _class(section: DictConfig) -> str:
    return section["_target_"].rpartition(".")[2]


def reproduce() -> Iterator[str]:
    """The commands of every model, its commit and what it cost; the published ones first."""
    final, others = rows("models"), rows("decoders")
    for name in dict.fromkeys(row.name for row in [*final, *others]):
        here = [row for row in final if row.name == name]
        tested = list(dict.fromkeys(test for row in here for test in commands(row.command)[1:]))
        here = here or [row for row in others if row.name == name]
        yield f"### {name}"
        yield table(
            {
                "#seed": row.seed,
                "#hours": f"{row.train_hours:.2f}",
                "#audio hours seen": f"{row.audio_hours_seen:.1f}",
                "#audio-seconds per second": f"{row.audio_hours_seen / row.train_hours:.0f}",
                "device": row.device,
                "commit": f"`{row.commit[:10]}`",
                "date": row.date[:10],
            }
            for row in {row.seed: row for row in here if row.train_hours}.values()
        )
        trained = list(dict.fromkeys(commands(row.command)[0] for row in here))
        tuned = dict.fromkeys(_tuning(row) for row in here if "decoder=tuned" in row.command)
        yield code("\n".join([*trained, *tuned, *tested]))
        yield from dict.fromkeys(told for row in here if (told := _folder(row)))


def _words(row: Result) -> dict[str, str]:
    """{KEY: VALUE} of a row's commands."""
    return dict(word.partition("=")[::2] for word in shlex.split(row.command))


def _tuning(row: Result) -> str:
    """The command that tunes the decoders of a row on dev, and runs each of them on test."""
    words = _words(row)
    corpus, run = words["datasets"], words["inferencer.from_pretrained"]
    root = [f"datasets.root=data/{corpus}"] if "datasets.root" in words else []
    lm = f"language_models/{corpus}-4gram.arpa.gz"
    return wrapped(["python", "-m", "report.decoders", run, lm, f"datasets={corpus}", *root])


def _folder(row: Result) -> str | None:
    """Where the test read a training whose command does not say so."""
    read = Path(_words(row)["inferencer.from_pretrained"])
    if "run_dir=" in row.command or read.is_relative_to(f"outputs/{row.name}"):
        return None
    return f"The training of seed {row.seed} was read in `{read}`: add `run_dir={read}` to its command."


def curves() -> Iterator[str | Picture]:
    """Learning curves of the final models, then of all other trainings that have a log."""
    final = [path.stem for path in files("models")]
    others = [name for name in log_names() if name not in final]
    for title, names in (("final models", final), ("others", others)):
        if not (names := [name for name in names if name in log_names()]):
            continue
        yield f"### The {title}"
        for name in names:
            found = {f"seed {seed}": log for seed, log in logs(name).items()}
            last = [[row for row in log if "WER_val" in row][-1] for log in found.values()]
            rates = ", ".join(f"{row['WER_val']:.1f}" for row in last)
            paths = ", ".join(map(link, log_paths(name).values()))
            yield (
                f"`{name}`: {last[0]['step']:,} steps, {last[0]['epoch']} epochs; WER on dev at "
                f"the end {rates} % ({paths})."
            )
            yield figures.training(name, found)


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
            f"CR-CTC reaches {_wer(consistent):.1f} % on AN4's test ({seeds} so far), which is "
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
    return f"{row.wer:.1f} ({row.wer_interval[0]:.1f}–{row.wer_interval[1]:.1f})"


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
    return [word for word in shlex.split(row.command.split(" && ")[0]) if "=" in word]


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
