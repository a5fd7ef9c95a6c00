"""The weights that were found best for a checkpoint, kept in it: ``CHECKPOINT/decoding/NAME.yaml``.

Such a file has the section ``decoder``, as one of ``configs/decoder``, and ``tuned``, which says on
what, when and how well. It lies inside the checkpoint since it holds for these very weights: a better
checkpoint that takes its place starts without.
"""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from asrlib.files import write_atomically

NAME = "tuned"  # of the section that stands for what was tuned: configs/decoder/tuned.yaml
FILES = {"lm_path": "language model", "lexicon_path": "lexicon"}
NOT_TOLD = (*FILES, "processes")  # where and how fast
COMMAND = (
    "python -m asrlib.decoding.tune tune.from_pretrained={} decoder=beam_lm decoder.lm_path=FILE"
)


def tuned_path(checkpoint: Path, name: str) -> Path:
    """Where the decoder that is called ``name`` is kept."""
    return checkpoint / "decoding" / f"{name}.yaml"


def save_tuned(path: Path, decoder: dict, tuned: dict) -> None:
    """Writes a decoder's section and how it was found.

    What it reads inside the checkpoint is named from there, so that both can move together.
    """
    checkpoint = path.parents[1].resolve()
    for key in FILES:
        file = decoder.get(key) and Path(decoder[key]).resolve()
        if file and file.is_relative_to(checkpoint):
            decoder = decoder | {key: str(file.relative_to(checkpoint))}
    header = "# Written by python -m asrlib.decoding.tune; inference.py decoder=tuned reads it.\n"
    write_atomically(path, header + OmegaConf.to_yaml({"decoder": decoder, "tuned": tuned}))


def chosen_decoder(section: Mapping, checkpoint: Path) -> Mapping:
    """``section`` itself; if it is that of ``decoder=tuned``, what was tuned for ``checkpoint``.

    Its ``which`` is the name of one of several; whatever else it sets replaces what was stored, and is
    told by the name of the decoder, lest its results stand for those of what was tuned.

    Raises:
        FileNotFoundError: nothing was tuned, or the language model is not where it was.
        ValueError: several were and none is chosen, or the file is no decoder's.
    """
    if section.get("name") != NAME:
        return section
    options = {k: v for k, v in section.items() if k not in ("name", "which") and v is not None}
    which, there = (
        section.get("which"),
        sorted(p.stem for p in tuned_path(checkpoint, "x").parent.glob("*.yaml")),
    )
    if not there:
        raise FileNotFoundError(
            f"no decoder was tuned for {checkpoint}: run {COMMAND.format(checkpoint)}"
        )
    if which is None and len(there) == 1:
        which = there[0]
    if which not in there:
        raise ValueError(f"decoder.which is {which}; tuned for {checkpoint}: {', '.join(there)}")
    path = tuned_path(checkpoint, which)
    stored = OmegaConf.load(path)
    if not isinstance(stored, DictConfig) or not isinstance(stored.get("decoder"), DictConfig):
        raise ValueError(f"{path} has no section decoder")
    for key in FILES:
        if (checkpoint / (stored.decoder.get(key) or "")).is_file():
            stored.decoder[key] = str(checkpoint / stored.decoder[key])
    decoder = OmegaConf.merge(stored.decoder, options)
    changed = {key: value for key, value in options.items() if stored.decoder.get(key) != value}
    told = [f"{key}={value}" for key, value in changed.items() if key not in NOT_TOLD]
    decoder.name = ", ".join([stored.decoder.name, *told])
    for key, what in FILES.items():
        if decoder.get(key) is not None and not Path(decoder[key]).is_file():
            raise FileNotFoundError(
                f"no {what} at {decoder[key]}, where {path} says it was (from the folder that tuning ran "
                f"in): name its place by decoder.{key}=FILE"
            )
    return decoder
