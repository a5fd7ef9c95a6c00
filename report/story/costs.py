"""What it costs: augmentation, training, loading, faults, and the budget of what was not run."""

import inspect
from collections.abc import Iterator

from hydra.utils import get_class

from asrlib.configs import compose
from report import budget as budgets
from report.story.evidence import FIGURES, Picture, link, measured, table


def augmentations() -> Iterator[str | Picture]:
    """Each augmentation that has a picture, with the first sentence of its class."""
    data = (
        "datasets=shipped",
        "datasets.root=data",
    )  # whose folder of noises recordings.yaml names
    sets = {
        name: compose("train", f"augmentations={name}", *data).augmentations
        for name in ("default", "robust", "recordings")  # each has what the one before has
    }
    for domain in ("waveform", "spectrogram"):
        drawn = {
            name: section["_target_"]
            for name, section in sets["recordings"][domain].items()
            if section is not None and (FIGURES / "augmentations" / f"{name}.png").exists()
        }
        yield f"### Of the {domain}: {len(drawn)}"
        for name, target in drawn.items():
            first = next(s for s, chosen in sets.items() if chosen[domain].get(name) is not None)
            doc = " ".join(inspect.getdoc(get_class(target)).split("\n\n")[0].split())
            yield f"**`{name}`** (`augmentations={first}`): {doc}"
            yield Picture(FIGURES / "augmentations" / f"{name}.png", f"Before and after {name}")
            sounds = [FIGURES / "augmentations" / f"{which}.flac" for which in ("before", name)]
            if all(path.exists() for path in sounds):
                yield "To hear: " + ", ".join(link(path, path.stem) for path in sounds)


def speed() -> Iterator[str]:
    """Training of Conformer blocks beside torchaudio's, of CTC beside PyTorch's, from bench-*.json."""
    found = measured("bench-train")
    if not found:
        return
    ours, theirs = ([row for row in found if row["system"] == s] for s in ("asrlib", "torchaudio"))
    ratios = [row["ratio_to_torchaudio"] for row in ours]
    yield (
        f"Conformer blocks, forward and backward, {ours[0]['device']}, {ours[0]['precision']}, "
        f"{ours[0]['threads']} thread: {min(ratios):.2f} to {max(ratios):.2f} times as fast as "
        "torchaudio's of the same shape."
    )
    yield table(
        {
            "#longest utterance, s": row["longest_seconds"],
            "#dropout": row["dropout"],
            "#ours, audio-s/s": f"{row['audio_seconds_per_second']:.1f}",
            "#torchaudio, audio-s/s": f"{peer['audio_seconds_per_second']:.1f}",
            "#ratio (quartiles)": f"{row['ratio_to_torchaudio']:.2f} "
            f"({row['ratio_quartiles'][0]:.2f}–{row['ratio_quartiles'][1]:.2f})",
            "#peak MB": f"{row['peak_mb']:.0f}, {peer['peak_mb']:.0f}",
        }
        for row, peer in zip(ours, theirs, strict=True)
    )
    ratios = [row["ratio_to_torch"] for row in measured("bench-ctc") if row["system"] == "asrlib"]
    if ratios:
        yield (
            f"CTC's loss and gradient on a CPU, one thread: {min(ratios):.1f} to {max(ratios):.1f} times as "
            f"fast as PyTorch's ({link('report/results/bench-ctc.json')})."
        )


def recognition() -> Iterator[str]:
    """The shipped model beside PocketSphinx, from bench-recognise.json."""
    found = measured("bench-recognise")
    if not found:
        return
    yield (
        f"The shipped model beside PocketSphinx with its default model; {found[0]['threads']} cores, "
        "loading apart. Compare rows of one machine, on the same data: PocketSphinx's own speed differs "
        "threefold between them. Rows of an older commit had another search, and the model before."
    )
    yield table(
        {
            "system": row["system"],
            "decoder": row["decoder"],
            "data": row["data"],
            "precision": row.get("precision", ""),
            "#batch, s": row.get("batch_seconds", ""),
            "#WER %": f"{row['wer']:.1f}",
            "#times real time": f"{row['audio_seconds_per_second']:.1f}",
            "#peak MB": f"{row['peak_mb']:,.0f}",
            "machine": row["device"],
            "commit": f"`{row['commit'][:7]}`",
        }
        for row in sorted(found, key=lambda row: (row["data"], row["device"]))
    )


def loading() -> Iterator[str]:
    """Formats, and batches beside lhotse's, from bench-data.json."""
    found = measured("bench-data")
    if not found:
        return
    yield f"One worker that reads, augments and batches ({found[0]['device']}):"
    yield table(
        {
            "format": row["format"],
            "#audio-s/s": f"{row['audio_seconds_per_second']:,.0f}",
            "#reading, s": f"{row['decode_seconds'] + row['resample_seconds']:.2f}",
            "#augmenting, s": f"{row['augment_seconds']:.2f}",
            "#kB per audio-second": f"{row['bytes_per_audio_second'] / 1000:.1f}",
        }
        for row in found
        if row["measured"] == "format"
    )
    yield (
        "Batches beside lhotse's, whose default are 10 buckets: the share of padding, of pairs of "
        "utterances that are in one batch again in the next epoch (less is more random), and seconds for "
        "an epoch:"
    )
    yield table(
        {
            "data": f"{row['utterances']:,} {row['data']}",
            "measured": {"sampler": "choosing", "loading": "choosing and reading"}[row["measured"]],
            "system": row["system"] + (f", {row['buckets']} buckets" if row["buckets"] else ""),
            "#batches": row["batches"],
            "#padding %": f"{100 * row['padding']:.1f}",
            "#repeated %": f"{100 * row['repeated']:.1f}",
            "#seconds": f"{row['seconds']:.3f}",
        }
        for row in found
        if row["measured"] in ("sampler", "loading")
    )


def faults() -> Iterator[str]:
    """What was done to trainings, and what they kept, from faults.json."""
    found = measured("faults")
    if not found:
        return
    held = sum(row["held"] for row in found)
    kills = sum(row["seen"].get("kills", 0) for row in found)
    yield f"`make faults`: {held} of {len(found)} promises held, with {kills} kills at random places."
    yield table(
        {
            "fault": row["fault"],
            "injected": row["injected"],
            "kept": row["kept"],
            "held": "yes" if row["held"] else "no",
        }
        for row in found
    )


def budget() -> Iterator[str]:
    """What the LibriSpeech recipes would cost; and what a GPU was measured to do, if one was."""
    gpu = measured("bench-gpu")
    yield (
        f"Computed, not measured: {budgets.GPUS} GPUs that are assumed to reach "
        f"{budgets.TFLOPS:g} TFLOPS each (a tenth of what small models reached on an H100), "
        f"{budgets.CORES} cores with the loader's rate as measured, sessions of "
        f"{budgets.SESSION_HOURS:g} hours and {budgets.WEEK_HOURS:g} hours a week "
        "(`python -m report.budget`)."
    )
    if gpu:
        file = link("report/results/bench-gpu.json")
        yield f"Measured on a GPU: {file} ({gpu[0]['device']}, {len(gpu)} checks)."
    yield budgets.table()
