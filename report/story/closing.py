"""What the numbers do not say, and where the bonuses are."""

from collections.abc import Iterator
from pathlib import Path

from asrlib.result import Result
from report.story.evidence import RESULTS, corpus, link, log_paths, measured, rows, table

# what, the file that has it, results that show it: any of these; where they are told
BONUSES = (
    (
        "External language model at inference",
        "asrlib/decoding/beam.py",
        ("an4-conformer-decoders.json", "shipped.json"),
        "part 6, What the language model helps",
    ),
    (
        "The same by a library, pyctcdecode",
        "asrlib/decoding/lm.py",
        ("an4-conformer-decoders.json",),
        "part 6",
    ),
    (
        "BPE instead of characters",
        "asrlib/text/bpe.py",
        ("an4-deepspeech2-bpe-decoders.json", "ablation-labels.json"),
        "part 5, Characters or pieces of words",
    ),
    (
        "LAS: listener, speller, attention",
        "asrlib/model/las.py",
        ("an4-las.json", "mini-las.json", "attention.json"),
        "part 5, CTC alone, or with attention; pictures in part 9",
    ),
    (
        "Augmentations of waveforms and spectrograms",
        "asrlib/augmentations/__init__.py",
        ("ablation-augment.json",),
        "part 7; what they are worth in part 5",
    ),
    (
        "Joint CTC and attention search",
        "asrlib/decoding/attention.py",
        ("an4-las.json", "mini-las.json"),
        "part 5",
    ),
    (
        "CR-CTC and CTC inside the stack",
        "asrlib/model/losses.py",
        ("an4-conformer-ablation.json",),
        "part 5",
    ),
    (
        "Phones inside the stack, and a search by them over a lexicon",
        "asrlib/decoding/lexicon.py",
        ("shipped.json", "mini-librispeech.json"),
        "parts 1, 2 and 6; part 9, What holds five hours back",
    ),
    (
        "Running average of the weights",
        "asrlib/training/averaging.py",
        ("an4-conformer-ablation.json",),
        "part 5",
    ),
    (
        "Exact resume after any end",
        "asrlib/training/saving.py",
        ("faults.json",),
        "part 8, Faults",
    ),
    (
        "Our beam search, compiled",
        "asrlib/decoding/prefix_search.py",
        ("bench-decode.json",),
        "part 6, Speed",
    ),
    (
        "Padding and mixing of batches",
        "asrlib/data/sampler.py",
        ("bench-data.json",),
        "part 8, Loading",
    ),
)


def limits() -> Iterator[str]:
    """True things that make the numbers weaker."""
    found = rows("models", "decoders", "ablations")
    corpora = {part["data"]: part for part in measured("corpora")}
    tested = {row.test_data: row for row in found}
    if (row := tested.get("an4 test")) and (part := corpora.get("an4 test")):
        train = corpora["an4 train"]
        yield (
            f"- Little data. AN4 has {train['seconds'] / 60:.0f} minutes for training; its test "
            f"has {row.words} words by {part['speakers']} speakers, so one word is "
            f"{100 / row.words:.2f} points, and intervals are wide."
        )
        yield (
            f"- {part['sentences_of_train']} of AN4's {part['utterances']} test sentences stand "
            "word for word in its training text, as its task has it. Acoustic model and language "
            f"model both profit. {part['speakers_of_train']} of its {part['speakers']} speakers "
            "are in train."
        )
    for name in sorted({corpus(row) for row in found}):
        kinds = {
            part: corpora[f"{name} {part}"]["files"]
            for part in ("train", "val")
            if f"{name} {part}" in corpora
        }
        lossy = {
            part: ", ".join(files) for part, files in kinds.items() if set(files) - {"flac", "wav"}
        }
        if lossy:
            told = ", ".join(
                f"{'dev' if part == 'val' else part} as {files}" for part, files in lossy.items()
            )
            near = " Error rates on such a dev are near those of the original recordings, not equal to them."
            yield (
                f"- The copy of {name} that was used is compressed with loss: {told}."
                + near * ("val" in lossy)
            )
    if any(row.train_data == "demo" for row in found):
        yield (
            "- The demo corpus is spoken by a synthesiser, its sentences come from a small "
            "grammar: its error rates say nothing about people."
        )
    trained = [row for row in found if row.system == "asrlib"]
    single = sorted(
        {r.name for r in trained if len({s.seed for s in trained if s.name == r.name}) == 1}
    )
    if lost := _without_a_log(trained):
        told = ", ".join(f"`{name}` (seed {seed})" for name, seed in lost)
        yield f"- No log was kept of {told}; of all other trainings there is one, from the first step."
    if single:
        told = ", ".join(f"`{name}`" for name in single)
        yield f"- One seed only, so that luck cannot be told from merit: {told}."
    if not any(part in row.test_data for row in found for part in ("test-clean", "test-other")):
        yield (
            "- Nothing was tested on LibriSpeech's test-clean or test-other, which decide the "
            "points of the course that the task comes from."
        )
    if not any("writer=" in row.command for row in found):
        yield (
            "- No training was logged to W&B or CometML, which the course asks for: their logs are the "
            "local writer's. `writer=wandb` or `writer=cometml` sends the same there."
        )
    if all(row.device == "cpu" for row in found):
        yield "- Every row is of a CPU."
    if not measured("bench-gpu"):
        yield "- The GPU path was never run on real hardware: `make gpu-check` waits for one."
    if not any("experiment=librispeech_" in row.command for row in found):
        yield "- The costs of the LibriSpeech recipes are computed; nobody has run them yet."


def _without_a_log(found: list[Result]) -> list[tuple[str, int | None]]:
    """Names and seeds of trainings; a mean of weights is none, and several rows may be of one."""

    def training(row: Result) -> tuple[str, int | None]:
        return row.command.rpartition(" && ")[0], row.seed

    trained = [row for row in found if "asrlib.soup" not in row.command]
    kept = {training(row) for row in trained if row.seed in log_paths(row.name)}
    return sorted({(row.name, row.seed) for row in trained if training(row) not in kept})


def bonuses() -> Iterator[str]:
    """Where each bonus is, and what shows it."""
    entries = []
    for what, code, evidence, told in BONUSES:
        there = [link(RESULTS / name) for name in evidence if (RESULTS / name).exists()]
        entries.append(
            {
                "what": what,
                "code": link(Path(code), code),
                "shown by": ", ".join(there) or "code and tests, no result yet",
                "told in": told,
            }
        )
    yield table(entries)
