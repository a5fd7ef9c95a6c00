"""What the report stands on: the committed files, and how they become tables.

All paths are relative to the root of the repository, which must be the working directory; links in what is
returned are relative to ``report/``, where the pages are.
"""

import json
import math
import re
import shlex
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from asrlib.files import read_jsonl
from asrlib.metrics.compare import Comparison, Pair
from asrlib.result import Result, load_results, markdown_table

REPORT = Path("report")
RESULTS, LOGS, ERRORS = REPORT / "results", REPORT / "logs", REPORT / "errors"
FIGURES, COMPARISONS = REPORT / "figures", REPORT / "comparisons"
SAMPLES = FIGURES / "samples"  # what the demo's training logged at its end
EXPERIMENTS = Path("asrlib/configs/experiment")
CARD = Path("checkpoints/shipped/README.md")  # of the model that is shipped
T95 = (
    12.71,
    4.30,
    3.18,
    2.78,
    2.57,
    2.45,
    2.36,
    2.31,
    2.26,
)  # Student's t, two-sided, 1 to 9 degrees

PLACES = ("datasets.root", "datasets.noise_dir")
EQUAL = 1e-6  # percent: two WERs of the same words that differ by less are the same


@dataclass(frozen=True)
class Picture:
    """A PNG of ``report/figures``, and what it shows."""

    path: Path
    alt: str


def shipped_name() -> str | None:
    """Of the model in ``checkpoints/shipped``; None where there is none."""
    return OmegaConf.load(CARD.with_name("config.yaml")).name if CARD.exists() else None


def kind(path: Path) -> str:
    """Of a file of results: "models", "decoders", "ablations" (and searches), or "measurements", which have
    no rows."""
    if path.stem in ("faults", "attention") or path.stem.startswith("bench-"):
        return "measurements"
    if path.stem.endswith("-decoders") or path.stem in ("an4-las", "mini-las"):
        return "decoders"
    tried = "ablation" in path.stem or path.stem.startswith("search-")
    return "ablations" if tried else "models"


def files(*kinds: str) -> list[Path]:
    return [path for path in sorted(RESULTS.glob("*.json")) if kind(path) in kinds]


def rows(*kinds: str) -> list[Result]:
    return [row for path in files(*kinds) for row in load_results(path)]


def corpus(row: Result) -> str:
    """What the model of a row was trained on last."""
    return row.train_data.partition(",")[0]


def results_table(*kinds: str, which: Callable[[Result], bool] | None = None) -> str:
    """The README's table of such rows, or of those that ``which`` chooses, with links from here."""
    return markdown_table(files(*kinds), which).replace("](report/", "](")


def measured(name: str) -> list[dict]:
    """The rows of a bench, of faults, attention or corpora; none where there is no such file."""
    path = REPORT / f"{name}.json" if name == "corpora" else RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def log_name(path: Path) -> tuple[str, int]:
    """(name of the file of results, seed) of a log ``NAME.jsonl``, which has seed 0, or
    ``NAME-seed1.jsonl``."""
    name, _, seed = path.stem.partition("-seed")
    return name, int(seed or 0)


def logs(name: str) -> dict[int, list[dict]]:
    """{seed: rows from the first step on} of the trainings called ``name``."""
    return {seed: read_jsonl(path) for seed, path in log_paths(name).items()}


def log_paths(name: str) -> dict[int, Path]:
    """{seed: log} of the trainings called ``name``, by seed."""
    names = {log_name(path): path for path in LOGS.glob("*.jsonl")}
    return {seed: names[found, seed] for found, seed in sorted(names) if found == name}


def log_names() -> list[str]:
    return sorted({log_name(path)[0] for path in LOGS.glob("*.jsonl")})


def comparisons() -> dict[str, Comparison]:
    """{model: greedy against beam search with a language model, on test}."""
    found = {}
    for path in sorted(COMPARISONS.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        pairs = {key: [Pair(**pair) for pair in content.pop(key)] for key in ("helped", "harmed")}
        found[path.stem] = Comparison(**content, **pairs)
    return found


def table(entries: Iterable[dict]) -> str:
    """Dictionaries with the same keys as a Markdown table; a key that begins with "#" is set right.

    Raises:
        ValueError: there are none.
    """
    entries = list(entries)
    if not entries:
        raise ValueError("a table without rows")
    lines = [
        f"| {' | '.join(key.lstrip('#') for key in entries[0])} |",
        "|" + "".join("---:|" if key.startswith("#") else "---|" for key in entries[0]),
    ]
    for entry in entries:
        cells = (str(value).replace("|", r"\|") for value in entry.values())
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def folded(title: str, *parts: str) -> str:
    """Behind a title that opens them."""
    return "\n\n".join([f"<details><summary>{title}</summary>", *parts, "</details>"])


def code(text: str) -> str:
    return f"```bash\n{text}\n```"


def link(path: Path | str, text: str | None = None) -> str:
    """A Markdown link from ``report/`` to a file of the repository."""
    path = Path(path)
    inside = path.is_relative_to(REPORT)
    target = path.relative_to(REPORT) if inside else Path("..") / path
    shown = (text or path.name).replace("__", r"\_\_")  # else bold
    return f"[{shown}]({target.as_posix()})"


def commands(command: str) -> list[str]:
    """The commands of a row, one after the other, with the data at ``data/NAME`` wherever they were."""
    found: list[list[str]] = [[]]
    for word in shlex.split(command):
        if word == "&&":
            found.append([])
            continue
        key, _, value = word.partition("=")
        if key in PLACES:
            name = Path(value.strip(chr(39))).name
            word = f"{key}=data" if name == "data" else f"{key}=data/{name}"
        found[-1].append(word)
    return [wrapped(words) for words in found]


def command_words(row: Result, place: int = -1) -> list[str]:
    """The words of one of a row's commands: the last made the row, those before it trained the model."""
    return shlex.split(row.command.split(" && ")[place])


def wrapped(words: Iterable[str], width: int = 92) -> str:
    """A command as a shell would read it, in lines that end with a backslash."""
    lines = [""]
    for word in map(shlex.quote, words):
        if lines[-1].strip() and len(lines[-1]) + len(word) > width:
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(lines)


def experiment(row: Result) -> str | None:
    """The file of ``asrlib/configs/experiment`` that a row was trained with, in its last stage."""
    names = re.findall(r"experiment=(\w+)", row.command)
    return names[-1] if names else None


def header(experiment: str) -> str:
    """The comment at the top of an experiment's file."""
    lines = (EXPERIMENTS / f"{experiment}.yaml").read_text(encoding="utf-8").splitlines()
    comment = [line for line in lines if line.startswith("#") and "@package" not in line]
    top = lines.index(next(line for line in lines if not line.startswith("#")))
    return "\n".join(line[1:].removeprefix(" ") for line in comment if lines.index(line) < top)


@dataclass(frozen=True)
class Contrast:
    """WER of two systems with the same seeds on the same data, in percent; after − before."""

    before: list[Result]
    after: list[Result]

    @property
    def differences(self) -> list[float]:
        return [b.wer - a.wer for a, b in zip(self.before, self.after, strict=True)]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.differences)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %, by Student's t over the seeds; None with a single seed."""
        n = len(self.differences)
        if n < 2:
            return None
        half = T95[n - 2] * statistics.stdev(self.differences) / math.sqrt(n)
        return self.mean - half, self.mean + half

    @property
    def told(self) -> str:
        if self.interval is None:
            return f"{signed(self.mean)} (one seed, no interval)"
        return f"{signed(self.mean)} ({signed(self.interval[0])} to {signed(self.interval[1])})"

    @property
    def verdict(self) -> str:
        word = "higher" if self.mean > EQUAL else "lower" if self.mean < -EQUAL else "equal"
        if self.interval is None:
            return f"{word} here; one seed, not tested"
        if self.interval[0] <= 0 <= self.interval[1]:
            n = len(self.differences)
            lower, higher = (
                sum(d < -EQUAL for d in self.differences),
                sum(d > EQUAL for d in self.differences),
            )
            return f"no difference seen (lower with {lower}, higher with {higher} of {n} seeds)"
        return word


def contrast(before: Sequence[Result], after: Sequence[Result]) -> Contrast | None:
    """Of the seeds that both have; None if there is none."""
    first, second = ({row.seed: row for row in both} for both in (before, after))
    seeds = sorted(first.keys() & second.keys())
    return Contrast([first[s] for s in seeds], [second[s] for s in seeds]) if seeds else None


def signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", "−")


def of(found: Iterable[Result], name: str, test_data: str, decoder: str = "greedy") -> list[Result]:
    """The rows of a model on some data by some decoder, by seed; a row that stands twice, once."""
    by_seed = {
        row.seed: row
        for row in found
        if (row.name, row.test_data, row.decoder) == (name, test_data, decoder)
    }
    return [by_seed[seed] for seed in sorted(by_seed)]


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def wer_of(rows: list[Result]) -> float:
    """Mean WER of some rows, in percent."""
    return mean(row.wer for row in rows)
