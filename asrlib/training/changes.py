"""Whether a run that goes on is still the run that began.

What cannot change a weight, or which data are seen, may change freely: the keys in ``FREE``. Instead of
some of these, facts are compared: what the data hold (``SpeechDataset.fingerprint``, and the names and
sizes of the recordings that augmentations draw from), so that they may move to another folder; the
batches in a step, so that two processes may go on where one took two batches a step; the precision that
was chosen. A key that is null is as one that is absent, so that the library may get options that are
off. All else is refused, by name, unless ``trainer.accept_changes`` names it or a section above it.

``trainer.epochs`` is not free: learning rates follow the share of the training that is done, so a run
with more epochs is another run from its first step on.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from asrlib.data import SpeechDataset

_TRAINER = (
    "eval_every early_stop log_every log_samples keep_checkpoints save_every_minutes max_hours "
    "max_bad_steps try_worst num_workers device compile graphs resume accept_changes accumulate precision"
)
FREE = {"name", "run_dir", "writer", "datasets", "init_from"}
FREE |= {f"trainer.{key}" for key in _TRAINER.split()}
ABSENT = "absent"


def describe(train: SpeechDataset, val: SpeechDataset, batches_per_step: int) -> dict[str, str]:
    """What a run is made of beside its configuration, under the keys that stand for it."""
    facts = {
        "datasets.train": train.fingerprint(),
        "datasets.val": val.fingerprint() + (f" {val.augmentations}" if val.augmentations else ""),
        "trainer.accumulate": f"{batches_per_step} batches a step",
    }
    if train.augmentations is not None:
        for name, augmentation in train.augmentations.augmentations.items():
            if recordings := getattr(augmentation, "recordings", None):
                facts[f"augmentations.waveform.{name}"] = repr(recordings)
    return facts


def refuse_changes(
    before: DictConfig,
    now: DictConfig,
    facts_before: Mapping[str, str],
    facts_now: Mapping[str, str],
    accepted: Sequence[str],
) -> None:
    """Compares what a run is made of with what the checkpoint was from which it goes on.

    Args:
        facts_before: those that are not there are not compared.
        accepted: keys or sections that may differ.

    Raises:
        ValueError: others differ; the message lists them with both values.
    """
    old, new = _plain(before), _plain(now)
    pairs = {
        key: (old.get(key, ABSENT), new.get(key, ABSENT))
        for key in sorted(old.keys() | new.keys())
        if not _below(key, FREE) and not _is_place(key)
    }
    pairs |= {key: (value, facts_now.get(key, ABSENT)) for key, value in facts_before.items()}
    changes = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    refused = [key for key in changes if not _below(key, accepted)]
    if refused:
        lines = "\n".join(
            f"  {key}: {changes[key][0]} then, {changes[key][1]} now" for key in refused
        )
        raise ValueError(
            f"this run began with other values:\n{lines}\n"
            "Go on with those, or begin another run in another run_dir, or say that the change is "
            f"meant: 'trainer.accept_changes=[{','.join(refused)}]'"
        )


def _plain(config: DictConfig) -> dict[str, Any]:
    """{"section.key": value}, as it would be read from a checkpoint."""
    read = OmegaConf.create(OmegaConf.to_yaml(config, resolve=True))
    return dict(_flat(OmegaConf.to_container(read)))


def _flat(section: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """{a: {b: 1}} → ("a.b", 1); lists are values."""
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


def _is_place(key: str) -> bool:
    """Whether that is a folder of recordings: what it holds is compared instead."""
    return key.startswith("augmentations.") and key.endswith(".data_dir")


def _below(key: str, sections: Iterable[str]) -> bool:
    return any(f"{key}.".startswith(f"{section}.") for section in sections)
