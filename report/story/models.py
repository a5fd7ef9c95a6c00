"""The models: their numbers, how they learned, and what was tried."""

import re
from collections.abc import Iterator

from asrlib.files import read_jsonl
from report.story import figures
from report.story.evidence import (
    CARD,
    EXPERIMENTS,
    FIGURES,
    SAMPLES,
    Picture,
    corpus,
    experiment,
    folded,
    header,
    link,
    log_names,
    log_paths,
    logs,
    measured,
    of,
    results_table,
    rows,
    shipped_name,
    table,
    wer_of,
)

# A line of an experiment's notes by which it was run.
COMMAND = re.compile(r"(OMP_NUM_THREADS=\d+ )?(torchrun .*)?train\.py ")


def headline() -> Iterator[str]:
    """What was reached, and on how much data."""
    published = rows("models")
    for test_data in dict.fromkeys(row.test_data for row in published):
        here = [row for row in rows("models", "decoders") if row.test_data == test_data]
        systems = dict.fromkeys((row.name, row.decoder) for row in here)
        best = min((of(here, name, test_data, decoder) for name, decoder in systems), key=wer_of)
        row, low_high = best[0], "–".join(f"{x:.1f}" for x in figures.spread(best))
        how = (
            f"mean of {len(best)} seeds, {low_high}"
            if len(best) > 1
            else f"95 % interval {low_high}"
        )
        yield (
            f"- Lowest WER on **{test_data}**: **{wer_of(best):.1f} %** ({how}) by `{row.name}` "
            f"with `{row.decoder}`, {row.parameters / 1e6:.1f} M parameters."
        )
    if name := shipped_name():
        yield (
            f"**The model that is shipped** is `{name}`: its {link(CARD, 'card')} has data, licences and "
            f"limits, {link('report/shipped-samples.md', 'a table')} its best and worst dev utterances; how "
            "it was made is in part 3, learning curves are in part 4."
        )
    yield folded("All rows", results_table("models"))
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
                "#speakers whose name is known": part["speakers"],
                "files": ", ".join(f"{n} {suffix}" for suffix, n in part["files"].items()),
                "#known sentences": ""
                if part["data"].endswith("train")
                else part["sentences_of_train"],
            }
            for part in parts
        )


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


def logged() -> Iterator[str | Picture]:
    """Spectrograms that were logged while a model was trained, as they are in ``report/figures/logged``."""
    found = sorted((FIGURES / "logged").glob("*.png"))
    if found:
        yield "### What else is logged"
        yield (
            "After each evaluation, beside the scalars: random utterances of train and dev with what was "
            "said, what was recognised, CER and WER; spectrograms and audio of an utterance of train as the "
            "model saw it and before augmentation, and of one of dev. Of the last training of the model that "
            "is shipped, after its last epoch (recordings are left out, as they are not ours; of the texts, "
            f"the best and the worst of dev are in {link('report/shipped-samples.md', 'a table')}):"
        )
    for path in found:
        yield Picture(path, f"Spectrogram: {path.stem.replace('-', ' ')}")
    yield from _samples()


def _samples() -> Iterator[str | Picture]:
    """Random utterances, as the demo's training logged them: its speech and texts are ours to give."""
    tables = {path.stem.split("_")[1]: read_jsonl(path) for path in sorted(SAMPLES.glob("*.jsonl"))}
    if not tables:
        return
    yield (
        "All of it, of the demo's training (`make demo`), whose speech and texts are ours to give, after its "
        "last epoch; of train as the model saw it, augmented:"
    )
    yield table(
        {
            "part": part,
            "utterance": row["utterance_id"],
            "target": row["target"],
            "predict": row["predict"],
            "#CER": f"{row['CER']:.1f}",
            "#WER": f"{row['WER']:.1f}",
        }
        for part, found in tables.items()
        for row in found
    )
    for path in sorted(SAMPLES.glob("*.png")):
        yield Picture(path, f"Spectrogram: {path.stem.replace('_', ' ')}")
    yield "Audio: " + ", ".join(link(path) for path in sorted(SAMPLES.glob("*.flac"))) + "."


def _told(name: str) -> str:
    """How long the trainings called ``name`` were, and where they ended."""
    last = [[row for row in log if "WER_val" in row][-1] for log in logs(name).values()]
    rates = ", ".join(f"{row['WER_val']:.1f}" for row in last)
    paths = ", ".join(map(link, log_paths(name).values()))
    return (
        f"`{name}`: at the last evaluation, after {last[0]['epoch']} epochs and {last[0]['step']:,} steps, "
        f"WER on dev {rates} % ({paths})."
    )


def notes() -> Iterator[str]:
    """What stands at the top of the experiments' files: why they are as they are, and what failed before."""
    run = {experiment(row) for row in rows("models", "decoders", "ablations")}
    for path in sorted(EXPERIMENTS.glob("*.yaml")):
        without = "" if path.stem in run else " (no row yet)"
        quoted = "\n".join(f"> {line}".rstrip() for line in _as_markdown(header(path.stem)))
        yield f"{link(path)}{without}:\n\n{quoted}"


def _as_markdown(text: str) -> Iterator[str]:
    """Lists need an empty line before them; commands are code, and so is what goes on with one, indented."""
    before, was_command = "", False
    for line in text.splitlines():
        command = bool(COMMAND.match(line)) or (was_command and line.startswith("  "))
        starts_list = line.startswith("* ") and not before.startswith(("* ", "  "))
        if before and (starts_list or command != was_command):
            yield ""
        yield f"    {line}" if command else line.replace("_", r"\_")
        before, was_command = line, command
