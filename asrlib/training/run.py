"""A training, built from its configuration."""

import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from asrlib import checkpoint, text
from asrlib.augmentations import SpectrogramAugmentations, WaveformAugmentations
from asrlib.build import build, build_encoder, build_features, build_named, choose_device
from asrlib.data.loader import make_loader
from asrlib.decoding import GreedyDecoder
from asrlib.files import write_atomically
from asrlib.model import AcousticModel
from asrlib.randomness import torch_seed
from asrlib.training.compilation import compile_encoder
from asrlib.training.state import Progress, TrainerOptions
from asrlib.training.trainer import Trainer
from asrlib.training.transfer import freeze, start_from


def command_line() -> str:
    """The command that is running, as a shell would read it."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def build_trainer(config: DictConfig) -> Trainer:
    """Everything that ``config`` describes; see ``asrlib/configs/train.yaml``."""
    OmegaConf.resolve(config)
    options = TrainerOptions(**config.trainer)
    device, seed = choose_device(options.device), config.seed
    run_dir = Path(config.run_dir)
    chosen = config.augmentations
    when = {"seed": seed, "from_epoch": chosen.from_epoch}
    waveform = WaveformAugmentations(build_named(chosen.waveform), **when)
    train_data = build(config.datasets.train, augmentations=waveform, training=True, seed=seed)
    text_encoder = _text_encoder(config, run_dir, (u.text for u in train_data.utterances))
    train_data.text_encoder = text_encoder
    val_data = build(config.datasets.val, text_encoder=text_encoder)
    torch.manual_seed(torch_seed(seed, "initialisation"))
    features = build_features(config)
    model = AcousticModel(features, build_encoder(config, features, text_encoder))
    if config.init_from is not None and checkpoint.find_latest(run_dir / "checkpoints") is None:
        start_from(config.init_from, model, text_encoder, config)
    freeze(model.encoder, options.freeze)
    model.to(device)
    if options.compile:
        compile_encoder(model.encoder, device)
    loading = {
        "batch_seconds": options.batch_seconds,
        "max_batch_size": options.max_batch_size,
        "num_workers": options.num_workers,
        "seed": seed,
        "pin_memory": device.type == "cuda",
    }
    trainer = Trainer(
        config=config,
        options=options,
        model=model,
        text_encoder=text_encoder,
        criterion=build(config.loss),
        optimizer=build(config.optimizer, model=model),
        schedule=build(config.lr_scheduler),
        decoder=GreedyDecoder(text_encoder),
        augmentations=SpectrogramAugmentations(build_named(chosen.spectrogram), **when),
        train_loader=make_loader(train_data, shuffle=True, **loading),
        val_loader=make_loader(val_data, **loading),
        # called apart: arguments of build are themselves searched for targets
        writer=build(config.writer, _partial_=True)(run_dir, OmegaConf.to_container(config)),
        run_dir=run_dir,
        seed=seed,
    )
    trainer.progress.command = command_line()
    return trainer


def _text_encoder(config: DictConfig, run_dir: Path, texts: Iterable[str]) -> text.CTCTextEncoder:
    """Learned from the training ``texts`` once in a run, and kept in its folder and checkpoints.

    Raises:
        ValueError: the run began with another one than ``config`` describes.
    """
    path = (checkpoint.find_latest(run_dir / "checkpoints") or run_dir) / "text_encoder.json"
    if not path.exists():
        learned = text.learn(texts, **config.text_encoder)
        write_atomically(path, json.dumps(learned.to_dict()))
    text_encoder = text.from_dict(json.loads(path.read_text()))
    if text_encoder.options != dict(config.text_encoder):
        raise ValueError(
            f"{path} was made with {text_encoder.options}, not with {config.text_encoder}: "
            f"choose another run_dir, or remove {run_dir}"
        )
    return text_encoder


def train(config: DictConfig) -> Progress:
    """Trains as ``config`` says, and returns where it ended."""
    trainer = build_trainer(config)
    print(
        f"{config.run_dir}: {trainer.model.parameter_count():,} parameters on {trainer.model.device}, "
        f"{len(trainer.text_encoder)} labels, "
        f"{len(trainer.train_loader.dataset)} utterances to train on, "
        f"{len(trainer.val_loader.dataset)} for dev"
    )
    for loader in (trainer.train_loader, trainer.val_loader):
        _tell_skipped(loader.dataset.skipped)
    return trainer.train()


def _tell_skipped(skipped: dict[str, str], most: int = 10) -> None:
    if skipped:
        print(f"left out {len(skipped)} utterances:", file=sys.stderr)
        for name, reason in list(skipped.items())[:most]:
            print(f"  {name}: {reason}", file=sys.stderr)
