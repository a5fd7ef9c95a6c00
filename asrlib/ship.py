"""A trained model as it is published: half the size, and nothing that only its trainer needs.

python -m asrlib.ship RUN FOLDER [--lm FILE] [--lexicon FILE]

FOLDER becomes a checkpoint like any other: weights in float16 (they are float32 again once loaded), the
configuration, the labels, where the training stood; and beside them the language model. Tune its decoder
there, then: python -m asrlib.decoding.tune tune.from_pretrained=FOLDER decoder.lm_path=FOLDER/FILE, with
decoder=lexicon decoder.lexicon_path=FOLDER/FILE where one is beside it. What is
printed are the entries of FOLDER's files for ``asrlib/configs/resources.yaml``.

Of a FOLDER that is there, the card stays (README.md), and all else goes: how to decode was tuned for other
weights. Of absolute paths in the training's commands and messages, the names alone are published.
"""

import argparse
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from asrlib.build import texts_in
from asrlib.checkpoint import find_checkpoint, read_state, read_weights, write_checksums
from asrlib.files import folder_written_atomically
from asrlib.result import run_name

CARD = "README.md"
PLACE = re.compile(
    r"(?<![\w.:/}*~])/(?:[^\s'\",=:/]+/)*([^\s'\",=:/]+)"
)  # an absolute path; its name


def ship(run: Path | str, folder: Path, *beside: Path) -> None:
    """Makes ``folder`` from a checkpoint, or the best one of ``run``, and the files that go ``beside`` it.

    Raises:
        FileNotFoundError: no checkpoint, or no such file.
        ValueError: its configuration names a place of this machine, or a weight does not fit float16.
    """
    checkpoint = find_checkpoint(run)
    config = OmegaConf.to_container(OmegaConf.load(checkpoint / "config.yaml"))
    config["run_dir"] = Path(
        config["run_dir"]
    ).name  # of folders of trainings, the name is published
    config["init_from"] = run_name(config.get("init_from")) or None
    if places := [f"{key}={value}" for key, value in texts_in(config) if Path(value).is_absolute()]:
        raise ValueError(
            f"{checkpoint} was trained with places of this machine, which are not to be published: "
            f"{', '.join(places)}. Name them from the folder that train.py runs in"
        )
    weights = {name: _halved(name, tensor) for name, tensor in read_weights(checkpoint).items()}
    with folder_written_atomically(folder) as made:
        save_file(weights, made / "model.safetensors")
        shutil.copy(checkpoint / "text_encoder.json", made)
        state = _without_places(read_state(checkpoint))
        (made / "state.json").write_text(json.dumps(state, indent=1) + "\n")
        OmegaConf.save(OmegaConf.create(config), made / "config.yaml")
        write_checksums(made)
        if (folder / CARD).exists():
            shutil.copy(folder / CARD, made)
        for file in beside:
            shutil.copy(file, made)


def _without_places(value: Any) -> Any:
    """What stands in a JSON file, absolute paths in its texts cut down to their names."""
    if isinstance(value, dict):
        return {key: _without_places(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_without_places(x) for x in value]
    return PLACE.sub(r"\1", value) if isinstance(value, str) else value


def _halved(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if not half.isfinite().all():
        raise ValueError(f"{name} has values beyond float16's range, or that are not finite")
    return half


def manifest_entries(folder: Path) -> dict[str, dict]:
    """An entry of ``resources.yaml`` for each file of ``folder``, which is named from the repository.

    What a tuning keeps for its next (``tune/``) is not published.
    """
    entries = {}
    files = (path for path in folder.rglob("*") if path.is_file())
    for path in sorted(path for path in files if "tune" not in path.relative_to(folder).parts):
        entries[f"{folder.name}/{path.relative_to(folder).as_posix()}"] = {
            "destination": path.as_posix(),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
            "sources": [{"file": path.as_posix()}],
        }
    return entries


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "run", nargs="?", help="a run or checkpoint; without it, FOLDER stays as it is"
    )
    parser.add_argument("folder", type=Path, help="what is published")
    parser.add_argument("--lm", type=Path, help="a language model beside it")
    parser.add_argument("--lexicon", type=Path, help="how its words sound, for decoder=lexicon")
    options = parser.parse_args(arguments)
    if options.run is not None:
        try:
            ship(options.run, options.folder, *filter(None, (options.lm, options.lexicon)))
        except (OSError, ValueError) as error:
            sys.exit(str(error))
    print(OmegaConf.to_yaml(manifest_entries(options.folder)))


if __name__ == "__main__":
    main()
