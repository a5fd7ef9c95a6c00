"""How to make each model again: what its experiment says, and the commands of its rows."""

import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from omegaconf import DictConfig

from asrlib.configs import compose
from asrlib.result import Result
from report.story.evidence import (
    EXPERIMENTS,
    code,
    commands,
    experiment,
    folded,
    link,
    log_paths,
    logs,
    rows,
    shipped_name,
    table,
    wrapped,
)

# What a row's command names, where that is something else today or on no other machine: what to name now.
INSTEAD = {
    "outputs/mini-ctc-gpu": "outputs/mini-ctc",
    "outputs/flagship-phones-soup-copy": "outputs/flagship-phones-soup",
    "data/lm3.arpa.gz": "checkpoints/shipped/lm3.arpa.gz",
}
# Of two processes, which a checkpoint that went on from it did not say.
ALONE = "python -u train.py experiment=flagship_longer"
TOGETHER = "torchrun --nproc-per-node=2 train.py experiment=flagship_longer"
INSTEAD_OF = {  # for the rows of one model
    "shipped-joint-2": {"outputs/shipped-joint": "outputs/shipped-joint-2"},
    **{
        name: {
            "checkpoints/shipped": f"outputs/{name}",
            "report/results/shipped.json": f"report/results/{name}.json",
        }
        for name in ("flagship-ctc", "flagship-longer", "flagship-longest", "flagship-phones")
    },
}


def stages() -> Iterator[str]:
    """The trainings one after the other that made the model that is shipped."""
    name, found = shipped_name(), rows("models")
    whole = next((row for row in found if row.name == name), None)
    if whole is None:
        return
    entries, means, hours = [], [], 0.0
    for command in whole.command.split(" && ")[:-1]:
        if "asrlib.soup" in command:
            out, *runs = (f"`{Path(run).name}`" for run in shlex.split(command)[3:])
            means.append(
                f"{out} is the mean of the weights of {' and '.join(runs)} (`asrlib.soup`)."
            )
            continue
        words = _words(command)
        path = EXPERIMENTS / f"{words['experiment']}.yaml"
        stage = words.get("name") or _configured(path.stem).name
        row = next((row for row in found if row.name == stage), whole)
        entries.append(
            {
                "training": f"`{stage}`",
                "experiment": link(path, f"experiment={path.stem}"),
                "#epochs": ", ".join(f"{log[-1]['epoch']:.0f}" for log in logs(stage).values()),
                "#hours": f"{row.train_hours - hours:.2f}",
                "log": ", ".join(map(link, log_paths(stage).values())),
            }
        )
        hours = row.train_hours
    yield "**The model that is shipped**, in trainings that each begin with the weights of the one before:"
    yield table(entries)
    yield from means


def recipes() -> Iterator[str]:
    """How each model is trained, as its experiment's configuration says; how long, as its log does."""
    entries, found = [], {}
    for row in [*rows("models"), *rows("decoders"), *rows("ablations")]:
        found.setdefault(experiment(row), []).append(row)
    for name, tried in found.items():
        if name is None or not (EXPERIMENTS / f"{name}.yaml").exists():
            continue
        config = _configured(name)
        row = next((row for row in tried if row.name == config.name), tried[0])
        heard = [round(log[-1]["epoch"]) for log in logs(row.name).values()]
        encoder, length = config.text_encoder, f"{max(heard, default=config.trainer.epochs)} epochs"
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
                "augmented from epoch": _augmented_from(config.augmentations),
            }
        )
    if entries:
        yield table(entries)


def _augmented_from(section: DictConfig) -> int | str:
    kinds = (section.get(kind) or {} for kind in ("waveform", "spectrogram"))
    used = any(options is not None for kind in kinds for options in kind.values())
    return section.from_epoch if used else "never"


def _loss(section: DictConfig) -> str:
    """The name of a loss, and what stands beside it with which weight."""
    names = ("attention", "intermediate", "consistency", "phones")
    weights = [f"{section[name]:g} {name}" for name in names if section.get(name)]
    return " + ".join([_class(section).removesuffix("Loss"), *weights])


def _class(section: DictConfig) -> str:
    return section["_target_"].rpartition(".")[2]


def reproduce() -> Iterator[str]:
    """The commands of every model, its commit and what it cost; the published ones first."""
    final, others = rows("models"), rows("decoders")
    shown = {experiment(row) for row in [*final, *others]}
    others += [row for row in rows("ablations") if experiment(row) not in shown]
    for name in dict.fromkeys(row.name for row in [*final, *others]):
        here = [row for row in final if row.name == name]
        here = here or [row for row in others if row.name == name]
        peer = {row.system for row in here} - {"asrlib"}
        yield f"### {' '.join([*peer, name])}"
        if costs := {row.seed: row for row in here if row.train_hours}:
            yield table(_cost(row) for row in costs.values())
        trained = [part for row in here for part in _trained(row)]
        tuned = dict.fromkeys(filter(None, map(_tuning, here)))
        # report.decoders tests each of its decoders
        tested = [_today(row)[-1] for row in here if not tuned or row in final]
        told = code("\n".join(dict.fromkeys([*trained, *tuned, *tested])))
        yield folded("The commands", told)
        yield from dict.fromkeys(filter(None, map(_folder, here)))


def _cost(row: Result) -> dict:
    heard = row.audio_hours_seen or 0.0
    return {
        "#seed": row.seed,
        "#hours": f"{row.train_hours:.2f}",
        "#audio hours seen": f"{heard:.1f}",
        "#audio-seconds per second": f"{heard / row.train_hours:.0f}",
        "device": row.device,
        "commit": f"`{row.commit[:10]}`",
        "date": row.date[:10],
    }


def _trained(row: Result) -> list[str]:
    """The trainings of a row. What a committed checkpoint began with stands where that is made."""
    made = _today(row)[:-1]
    name = experiment(row)
    if name is None or not (EXPERIMENTS / f"{name}.yaml").exists():
        return made
    start = Path(_configured(name).init_from or "")
    return made[-1:] if start.is_relative_to("checkpoints") else made


def _today(row: Result) -> list[str]:
    """The commands of a row, with what has changed since in its place."""
    instead = INSTEAD | INSTEAD_OF.get(row.name, {})
    told = []
    for command in row.command.replace(ALONE, TOGETHER).split(" && "):
        words = []
        for word in shlex.split(command):
            word = _beginning(command) if word == "init_from=checkpoints/shipped" else word
            key, equals, value = word.rpartition("=")
            words.append(shlex.quote(f"{key}{equals}{instead.get(value, value)}"))
        told.append(" ".join(words))
    return commands(" && ".join(told))


def _beginning(training: str) -> str:
    """What a training began with that was shipped then: its experiment names who made it."""
    return f"init_from={_configured(_words(training)['experiment']).init_from}"


@cache
def _configured(experiment: str) -> DictConfig:
    """The configuration of a training, which takes Hydra a third of a second; not to be changed."""
    return compose("train", f"experiment={experiment}", "datasets.root=DIR")


def _words(command: str) -> dict[str, str]:
    """{KEY: VALUE} of a row's commands; those of another program may lack what ours have."""
    return dict(word.partition("=")[::2] for word in shlex.split(command))


def _tuning(row: Result) -> str | None:
    """The command that tunes the decoders of a row on dev, and runs each of them on test.

    None where no decoder was tuned, or its language model is not one of ``language_models``. That of
    ``joint+lm`` is tuned by itself: each of its points takes minutes.
    """
    words = _words(row.command)
    corpus, run = words.get("datasets", ""), words.get("inferencer.from_pretrained", "")
    lm = Path("language_models") / f"{corpus}-4gram.arpa.gz"
    if words.get("decoder") != "tuned" or not run or not lm.exists():
        return None
    root = [f"datasets.root=data/{corpus}"] if "datasets.root" in words else []
    data = [f"datasets={corpus}", *root]
    if words.get("decoder.which") == "joint+lm":
        tuned = [f"tune.from_pretrained={run}", *data, "decoder=joint_lm", f"decoder.lm_path={lm}"]
        return wrapped(["python", "-m", "asrlib.decoding.tune", *tuned])
    return wrapped(["python", "-m", "report.decoders", run, str(lm), *data])


def _folder(row: Result) -> str | None:
    """Where the test read a training whose command does not say so."""
    read = Path(_words(row.command).get("inferencer.from_pretrained", ""))
    known = "run_dir=" in row.command or read.is_relative_to(f"outputs/{row.name}")
    if known or not read.is_relative_to("outputs"):
        return None
    return f"The training of seed {row.seed} was read in `{read}`: add `run_dir={read}` to its command."
