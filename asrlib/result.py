"""One published number, with all that is needed to repeat and to doubt it.

python -m asrlib.result report/results/*.json    prints the rows as a table for the README
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import get_type_hints

from asrlib.files import write_atomically
from asrlib.metrics import ErrorRate, wer_interval


@dataclass(frozen=True)
class Result:
    """A row of ``report/results/*.json``. Error rates are in percent: 7.4 means 7.4 %."""

    system: str  # "asrlib", or a peer's name
    name: str
    commit: str  # of the code that was run; "+" where the working tree differed from it
    command: str
    train_data: str  # "an4", or "an4, from shipped", of a run that began with another's weights
    test_data: str
    decoder: str
    wer: float  # 100 * (S + D + I) / words
    cer: float
    wer_interval: tuple[float, float] | None  # 95 %, bootstrap over speakers
    substitutions: int
    deletions: int
    insertions: int
    words: int
    utterances: int
    parameters: int
    device: str  # that trained it, and that tested it where this was another
    train_hours: float | None  # wall time
    audio_hours_seen: float | None
    seed: int | None
    date: str  # ISO 8601

    def __post_init__(self):
        for name, kind in get_type_hints(Result).items():
            value = getattr(self, name)
            allowed = {float: (int, float), tuple[float, float] | None: (tuple, list, type(None))}
            if not isinstance(value, allowed.get(kind, kind)):
                raise TypeError(f"result {self.name!r}: {name} is {value!r}, expected {kind}")
        edits = self.substitutions + self.deletions + self.insertions
        if abs(self.wer - 100 * edits / self.words) > 0.01:
            raise ValueError(
                f"result {self.name!r}: {edits} edits of {self.words} words, {self.wer}"
            )


def scores(errors: ErrorRate) -> dict:
    """The fields of a ``Result`` that follow from the scored utterances."""
    try:
        interval = wer_interval(errors.utterances)
    except ValueError:  # a single speaker
        interval = None
    return errors.as_dict() | {"wer_interval": interval}


def result_of(
    checkpoint: Path, errors: ErrorRate, name: str | None = None, **facts: str | int
) -> Result:
    """The row of a trained model: what its checkpoint knows, and what was found.

    Args:
        checkpoint: folder of the checkpoint that was tested.
        name: of the row; that of the training if not given.
        facts: ``test_data``, ``decoder``, ``parameters``, ``device``, and ``command``, that of the test.

    Raises:
        ValueError: no reference has words, so there is no WER.
    """
    if not errors.words.reference:
        raise ValueError(f"no row of {facts['test_data']}: none of its recordings has a transcript")
    from omegaconf import OmegaConf  # imported here: scoring texts needs neither it nor torch

    from asrlib.checkpoint import read_state

    config, state = OmegaConf.load(checkpoint / "config.yaml"), read_state(checkpoint)
    commands = [*training_commands(state, config.trainer.accumulate), facts["command"]]
    facts["command"] = " && ".join(commands)
    if (trained := state.get("devices", [])) and trained != [facts["device"]]:
        facts["device"] = f"{' and '.join(trained)}, tested on {facts['device']}"
    start = run_name(config.get("init_from"))
    return Result(
        system="asrlib",
        name=name or config.name,
        commit=current_commit(),
        train_data=config.datasets.name + (f", from {start}" if start else ""),
        train_hours=round(state["train_seconds"] / 3600, 4),
        audio_hours_seen=round(state["audio_seconds"] / 3600, 4),
        seed=config.seed,
        date=now(),
        **facts,
        **scores(errors),
    )


def training_commands(state: dict, accumulate: int) -> list[str]:
    """Those that made a checkpoint, by its ``state``, the first stage's first; the last one under torchrun if
    several processes made a step, each of which knows its own arguments."""
    batches = re.match(r"\d+", state.get("facts", {}).get("trainer.accumulate", "1"))
    processes = int(batches[0]) // accumulate
    if processes < 2:
        return [*state.get("earlier", []), state["command"]]
    words = [word for word in shlex.split(state["command"]) if word not in ("python", "-u")]
    together = shlex.join(["torchrun", f"--nproc-per-node={processes}", *words])
    return [*state.get("earlier", []), together]


def run_name(folder: str | None) -> str:
    """What the run is called whose folder, or checkpoint's folder, that is; "" of none."""
    names = Path(folder or "").parts
    inside = re.compile(r"best|step-\d+|checkpoints")
    return next((name for name in names[::-1] if not inside.fullmatch(name)), "")


def command_line() -> str:
    """The command that is running, as a shell would read it."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def provenance() -> dict[str, str]:
    """What a measurement is told with: ``commit``, ``command`` and ``date``."""
    return {"commit": current_commit(), "command": command_line(), "date": now()}


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def current_commit() -> str:
    """Hash of the commit that the code is from, "+" added where files differ; "unknown" outside git."""
    root = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def save_results(path: Path | str, rows: list[Result]) -> None:
    """Writes a list of rows as JSON."""
    write_atomically(path, json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def add_result(path: Path | str, row: Result) -> None:
    """Adds a row to those in a file; it takes the place of one of the same run, test and decoder."""

    def key(result: Result) -> tuple:
        return result.system, result.name, result.test_data, result.decoder, result.seed

    others = [r for r in load_results(path) if key(r) != key(row)] if Path(path).exists() else []
    save_results(path, [*others, row])


def load_results(path: Path | str) -> list[Result]:
    """The rows of a file.

    Raises:
        ValueError, TypeError: a row that does not keep to the schema, which is this dataclass.
    """
    content = json.loads(Path(path).read_text())
    names = {field.name for field in fields(Result)}
    rows = content if isinstance(content, list) else [content]
    for row in rows:
        if set(row) != names:
            raise ValueError(f"{path}: fields differ from the schema in {sorted(set(row) ^ names)}")
    return [Result(**row) for row in rows]


def markdown_table(paths: list[Path], which: Callable[[Result], bool] | None = None) -> str:
    """The rows of ``paths``, or those that ``which`` chooses, as a Markdown table, best WER first within each
    test set.

    Rows that differ by their seed alone are one line: means, with the range of the WER. Rows that stand in
    several files are one line, too, of the first of these.
    """
    header = (
        "| model | trained on | tested on | decoder | WER % (95 % interval) | CER % | parameters "
        "| hours, device | row |\n|---|---|---|---|---|---|---|---|---|"
    )
    groups: dict[tuple, list[Result]] = {}
    for path in paths:
        for row in filter(which, load_results(path)):
            key = path, row.test_data, row.system, row.name, row.decoder
            groups.setdefault(key, []).append(row)
    entries: list[tuple[Path, list[Result], float]] = []
    for (path, *_), rows in groups.items():
        if all(rows != others for _, others, _ in entries):
            entries.append((path, rows, _mean(rows, "wer")))
    entries.sort(key=lambda entry: (entry[1][0].test_data, entry[2]))
    return "\n".join([header, *(_markdown_row(rows, path) for path, rows, _ in entries)])


def _mean(rows: list[Result], name: str) -> float:
    return sum(getattr(row, name) for row in rows) / len(rows)


def _markdown_row(rows: list[Result], path: Path) -> str:
    row = rows[0]
    if len(rows) > 1:
        rates = [r.wer for r in rows]
        spread = f"{len(rows)} seeds: {min(rates):.1f}–{max(rates):.1f}"
    elif row.wer_interval:
        spread = "–".join(f"{x:.1f}" for x in row.wer_interval)
    else:
        spread = "one speaker"
    hours = "" if row.train_hours is None else f"{_mean(rows, 'train_hours'):.1f} h, "
    cells = [
        f"{row.system} {row.name}",
        row.train_data,
        row.test_data,
        row.decoder,
        f"**{_mean(rows, 'wer'):.1f}** ({spread})",
        f"{_mean(rows, 'cer'):.1f}",
        f"{row.parameters / 1e6:.1f} M",
        hours + row.device,
        f"[{path.name}]({path.as_posix()})",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(markdown_table([Path(argument) for argument in sys.argv[1:]]))
