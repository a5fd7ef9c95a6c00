"""Results of commands as tables, pictures and sound in a notebook."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from IPython.display import Audio, Image, Markdown, display
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from asrlib.build import build
from asrlib.configs import compose
from asrlib.files import read_jsonl
from asrlib.machine import Machine, survey
from asrlib.metrics.analysis import by_length, by_speaker, confusions
from asrlib.metrics.compare import compare, read_table
from asrlib.metrics.points import points
from asrlib.result import load_results, markdown_table
from asrlib.tracking.figures import curves_figure


def show_machine(folder: Path | str) -> Machine:
    """Shows what this machine has, and returns it; ``folder`` is where trainings will write."""
    machine = survey(folder)
    show_table([{"what": what, "found": found} for what, found in machine.rows()])
    return machine


def show_choices(machine: Machine, *overrides: str) -> None:
    """The options of ``train.py`` that use this machine well, for the training of ``overrides``."""
    config = compose("train", *overrides)
    seconds = machine.batch_seconds(config)
    print(
        f"trainer.device={machine.device} trainer.precision={machine.precision} "
        f"trainer.batch_seconds={seconds}  # the most that fits; the experiment has "
        f"{config.trainer.batch_seconds}"
    )
    print(f"processes = {machine.processes}")


def show_data(*overrides: str) -> None:
    """How much there is to train on and for dev, and what is left out by which reason."""
    config = compose("train", *overrides)
    OmegaConf.resolve(config)
    rows = []
    for part in ("train", "val"):
        data = build(config.datasets[part], training=part == "train")
        hours = sum(u.duration for u in data.utterances) / 3600
        left_out = "; ".join(f"{n} × {why}" for why, n in data.skipped_by_reason().items())
        rows.append({"part": part, "utterances": len(data), "hours": hours, "left out": left_out})
    show_table(rows)


def show_curves(*run_dirs: Path | str) -> None:
    """Losses and error rates of trainings, from their first step."""
    for run_dir in run_dirs:
        print(run_dir)
        show_figure(curves_figure(read_jsonl(_logs(run_dir) / "metrics.jsonl")))


def show_figure(figure: Figure) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=80)
    display(Image(data=content.getvalue()))


def show_samples(run_dir: Path | str) -> None:
    """Random utterances of dev at the last evaluation: target, predict, WER, CER."""
    rows = read_jsonl(_newest(run_dir, "samples_val", "jsonl"))
    names = ("target", "predict", "WER", "CER")
    show_table([{name: row.get(name, "") for name in names} for row in rows])


def show_pictures(run_dir: Path | str) -> None:
    """An utterance before and after augmentation, to see and to hear; attention where there is any."""
    for name in (
        "spectrogram_clean_train",
        "spectrogram_train",
        "attention_train",
        "attention_val",
    ):
        if list(_logs(run_dir).glob(f"{name}-*.png")):
            display(Image(filename=str(_newest(run_dir, name, "png"))))
    for name in ("audio_clean_train", "audio_train"):
        display(Audio(filename=str(_newest(run_dir, name, "flac"))))


def show_results(*paths: Path | str) -> None:
    """Result rows as the README's tables show them."""
    display(Markdown(markdown_table([Path(path) for path in paths])))


def show_comparison(before: Path | str, after: Path | str, name: str) -> None:
    """Two tables of ``inference.py``: the difference with its interval, who was helped, who harmed."""
    found = compare(read_table(before), read_table(after))
    interval = (
        "one speaker"
        if found.interval is None
        else "95 % interval {:.2f} to {:.2f}".format(*found.interval)
    )
    display(
        Markdown(
            f"**{name}**: WER {found.wer_before:.2f} → {found.wer_after:.2f} %, difference "
            f"{found.difference:+.2f} ({interval}); fewer errors in {found.fewer_errors} of "
            f"{found.utterances} utterances, more in {found.more_errors}"
        )
    )
    pairs = [("helped", pair) for pair in found.helped] + [
        ("harmed", pair) for pair in found.harmed
    ]
    if pairs:
        show_table(
            [
                {"": what, "target": p.reference, "before": p.before, "after": p.after}
                for what, p in pairs
            ]
        )


def show_errors(table: Path | str, name: str) -> None:
    """Where the errors of a table of ``inference.py`` are."""
    errors = read_table(table)
    display(Markdown(f"**{name}**: WER {errors.wer:.2f} %, CER {errors.cer:.2f} %"))
    for rows in (by_length(errors), by_speaker(errors), confusions(errors)):
        if rows:
            show_table(rows)


def show_points(results: Path | str, clean: str, other: str) -> None:
    """The assignment's points for each decoder, from the rows tested on ``clean`` and on ``other``."""
    rates: dict[str, dict[str, float]] = {}
    for row in load_results(results):
        found = rates.setdefault(row.decoder, {})
        if row.test_data == clean:
            found |= {"clean_wer": row.wer, "clean_cer": row.cer}
        if row.test_data == other:
            found |= {"other_wer": row.wer}
    show_table(
        [
            {
                "decoder": decoder,
                **{name: found.get(name, "") for name in ("clean_wer", "clean_cer", "other_wer")},
                "points": points(**found, attention=_spells(decoder)),
            }
            for decoder, found in rates.items()
            if found
        ]
    )


def _spells(decoder: str) -> bool:
    return decoder.startswith(("attention", "joint"))


def show_predictions(table: Path | str, most: int = 20) -> None:
    """The first texts of a table of ``inference.py``, with the target where it is known."""
    rows = read_jsonl(Path(table))[:most]
    show_table(
        [
            {"id": r["utterance_id"], "target": r["target"] or "", "predict": r["predict"]}
            for r in rows
        ]
    )


def show_table(rows: Sequence[dict]) -> None:
    """Dictionaries with the same keys as a table; nothing if there are none."""
    if rows:
        display(Markdown("\n".join(_markdown_lines(rows))))


def _markdown_lines(rows: Sequence[dict]) -> Iterable[str]:
    yield f"| {' | '.join(rows[0])} |"
    yield "|---" * len(rows[0]) + "|"
    for row in rows:
        cells = (f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values())
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _logs(run_dir: Path | str) -> Path:
    return Path(run_dir) / "logs"


def _newest(run_dir: Path | str, name: str, suffix: str) -> Path:
    """The last of ``logs/NAME-STEP.SUFFIX``, whose steps have the same number of digits."""
    return max(_logs(run_dir).glob(f"{name}-*.{suffix}"))
