"""A training, built from its configuration."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from asrlib import text
from asrlib.augmentations import SpectrogramAugmentations, WaveformAugmentations
from asrlib.build import (
    build,
    build_decoder,
    build_encoder,
    build_features,
    build_named,
    choose_device,
    reads_of,
)
from asrlib.checkpoint import find_checkpoint, read_text_encoder
from asrlib.data.loader import make_loader
from asrlib.decoding.contract import Decoder
from asrlib.files import write_atomically
from asrlib.model import AcousticModel, CTCLoss, JointLoss
from asrlib.randomness import torch_seed
from asrlib.result import command_line
from asrlib.training import saving
from asrlib.training.allocation import keep_freed_memory
from asrlib.training.changes import describe
from asrlib.training.compilation import compile_encoder
from asrlib.training.distributed import ALONE, World, joined
from asrlib.training.graphs import record_encoder
from asrlib.training.state import Progress, TrainerOptions
from asrlib.training.stopping import Stopping
from asrlib.training.trainer import Trainer
from asrlib.training.transfer import count_earlier_stages, freeze, start_from


def build_trainer(
    config: DictConfig, world: World = ALONE, device: torch.device | None = None
) -> Trainer:
    """Everything that ``config`` describes; see ``asrlib/configs/train.yaml``.

    Args:
        world: this process among those that train together.
        device: of this process; chosen by ``trainer.device`` unless given.

    Raises:
        ValueError: the run of this folder began with another configuration or other data; or the loss does
            not train what the model or the decoder has.
    """
    OmegaConf.resolve(config)
    options = TrainerOptions(**config.trainer)
    stopping = Stopping(options.max_hours)  # whose time begins now
    device, seed = device or choose_device(options.device), config.seed
    run_dir = Path(config.run_dir)
    chosen = config.augmentations
    when = {"seed": seed, "from_epoch": chosen.from_epoch}
    start = world.first(lambda: saving.find_start(run_dir / "checkpoints", options.resume))
    with world.first_before_others():
        waveform = WaveformAugmentations(build_named(chosen.waveform), **when)
        train_data = build(config.datasets.train, augmentations=waveform, training=True, seed=seed)
        val_data = build(config.datasets.val)
        if not any(u.text for u in val_data.utterances):
            raise ValueError("dev has no transcripts, and without them nothing can be selected")
        facts = describe(train_data, val_data, options.accumulate * world.size)
        if start is not None:
            saving.refuse_changes(start, config, facts, options.accept_changes)
        texts = (u.text for u in train_data.utterances)
        made_of = f"{facts['datasets.train']}, {config.init_from}" if start is None else None
        train_data.text_encoder = _text_encoder(config, start or run_dir, texts, made_of)
    text_encoder = val_data.text_encoder = train_data.text_encoder
    torch.manual_seed(torch_seed(seed, "initialisation"))
    features = build_features(config)
    model = AcousticModel(features, build_encoder(config, features, text_encoder))
    if config.init_from is not None and start is None:
        start_from(config.init_from, model, text_encoder, config, world.tell)
    freeze(model.encoder, options.freeze)
    criterion = build(config.loss)
    _require_phones(criterion, config.decoder, model)
    if criterion.phones:  # all words at once: espeak-ng is started each time that it is asked
        heard = (u.text or "" for data in (train_data, val_data) for u in data.utterances)
        criterion.pronounce.words([*{word for text in heard for word in text.split()}])
    decoder = build_decoder(config.decoder, text_encoder, model.speller)
    _require_what_is_trained(criterion, decoder, model)
    model.to(device)
    if options.compile:
        compile_encoder(model.encoder, device)
    recorded = options.graphs and record_encoder(model.encoder, device, options.accumulate)
    loading = {
        "batch_seconds": options.batch_seconds,
        "max_batch_size": options.max_batch_size,
        "num_workers": options.num_workers,
        "seed": seed,
        # while a graph is recorded no thread may ask the GPU for pinned memory
        "pin_memory": device.type == "cuda" and not recorded,
        "rank": world.rank,
        "world_size": world.size,
    }
    # called apart: arguments of build are themselves searched for targets
    make_writer = build(config.writer, _partial_=True)
    trainer = Trainer(
        config=config,
        options=options,
        model=model,
        text_encoder=text_encoder,
        criterion=criterion,
        optimizer=build(config.optimizer, model=model),
        schedule=build(config.lr_scheduler),
        decoder=decoder,
        augmentations=SpectrogramAugmentations(build_named(chosen.spectrogram), **when),
        train_loader=make_loader(train_data, shuffle=True, **loading),
        val_loader=make_loader(val_data, **loading),
        writer=make_writer(run_dir, OmegaConf.to_container(config)) if world.is_first else None,
        run_dir=run_dir,
        seed=seed,
        start=start,
        stopping=stopping,
        world=world,
    )
    trainer.progress.command, trainer.progress.facts = command_line(), facts
    if config.init_from is not None and start is None:
        count_earlier_stages(config.init_from, trainer.progress)
    return trainer


def _require_what_is_trained(criterion: CTCLoss, decoder: Decoder, model: AcousticModel) -> None:
    """Refuses a speller without a loss, and checkpoints that are selected by what has none."""
    speller = model.speller
    learns = speller is not None and any(p.requires_grad for p in speller.parameters())
    if learns and not isinstance(criterion, JointLoss):
        raise ValueError(
            "this loss does not train the model's speller: choose loss=joint or loss=attention, or freeze "
            "it: 'trainer.freeze=[speller]'"
        )
    by_attention = getattr(decoder, "ctc_weight", 1) == 0
    if isinstance(criterion, JointLoss) and criterion.attention == 1 and not by_attention:
        raise ValueError(
            "loss.attention=1 does not train CTC, by which this decoder would choose the best checkpoint: "
            "choose decoder=attention, or loss=joint"
        )


def _require_phones(criterion: CTCLoss, decoder: Mapping, model: AcousticModel) -> None:
    """Refuses phones without a loss, and a loss or the section of a decoder without the phones it needs."""
    encoder = getattr(model.encoder, "listener", model.encoder)
    head = getattr(encoder, "phone_head", None)
    if head is None and "phone_log_probs" in reads_of(decoder):
        raise ValueError(
            "this decoder, by which checkpoints would be chosen, searches by phones, which the model does "
            "not make: set model.phone_layer and loss=phones, or choose decoder=greedy"
        )
    if criterion.phones and head is None:
        raise ValueError(
            f"loss.phones={criterion.phones} needs a model that makes phones: set model.phone_layer of "
            "model=conformer, or choose another loss"
        )
    if head is not None and head.weight.requires_grad and not criterion.phones:
        raise ValueError(
            "this loss does not train the model's phones: choose loss=phones, or model.phone_layer=null, or "
            "freeze them: 'trainer.freeze=[phone_head,from_phones]'"
        )


def _text_encoder(
    config: DictConfig, folder: Path, texts: Iterable[str], made_of: str | None
) -> text.CTCTextEncoder:
    """Made once in a run, and kept in its folder and checkpoints.

    It is that of ``init_from`` where that was made with the same options, so that fine-tuning on other
    texts keeps its labels, and with them its head; else it is learned from the training ``texts``. Dropout of
    merges says how labels are drawn, not which there are, and may be changed.

    Args:
        folder: the run's, or the checkpoint's from which it goes on.
        made_of: tells ``texts`` and ``init_from`` apart from those of an earlier start that came to no
            checkpoint, whose labels are kept if they are the same; None if this goes on from one.

    Raises:
        ValueError: the run began with another one than ``config`` describes.
    """
    path = folder / "text_encoder.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    drawn = {key: value for key, value in config.text_encoder.items() if key == "dropout"}
    if made_of is not None and kept.get("made_of") != made_of:
        found = None
        if config.init_from is not None:
            found = read_text_encoder(find_checkpoint(config.init_from))
            found = text.from_dict(found.to_dict() | drawn)
        if found is None or found.options != dict(config.text_encoder):
            found = text.learn(texts, **config.text_encoder)
        kept = found.to_dict() | {"made_of": made_of}
        write_atomically(path, json.dumps(kept))
    text_encoder = text.from_dict(kept | drawn)
    if text_encoder.options != dict(config.text_encoder):
        raise ValueError(
            f"{path} was made with {text_encoder.options}, not with {config.text_encoder}: "
            f"choose another run_dir, or remove {config.run_dir}"
        )
    return text_encoder


def train(config: DictConfig) -> Progress:
    """Trains as ``config`` says, and returns where it ended.

    Where torchrun started several processes, they train one model together, and return the same.
    """
    with joined(choose_device(config.trainer.device)) as (world, device):
        if device.type == "cpu":
            keep_freed_memory()
        trainer = build_trainer(config, world, device)
        train_data, val_data = trainer.train_loader.dataset, trainer.val_loader.dataset
        together = f", {world.size} processes" if world.size > 1 else ""
        world.tell(
            f"{config.run_dir}: {trainer.model.parameter_count():,} parameters on {device}{together}, "
            f"{len(trainer.text_encoder)} labels, {len(train_data)} utterances to train on, "
            f"{len(val_data)} for dev"
        )
        if world.is_first:
            for data in (train_data, val_data):
                _tell_skipped(data.skipped, data.skipped_by_reason())
        progress = trainer.train()
        if world.is_first:
            _tell_skipped(progress.unreadable)
            for what, count in progress.bad_steps.items():
                print(f"left out {count} steps: {what}", file=sys.stderr)
        if progress.finished:
            world.tell(
                f"best on dev: WER {progress.best_wer:.2f} %, CER {progress.best_cer:.2f} %, "
                f"epoch {progress.best_epoch}; checkpoints, logs and figures in {config.run_dir}"
            )
        return progress


def _tell_skipped(
    skipped: Mapping[str, str], by_reason: Mapping[str, int] | None = None, most: int = 10
) -> None:
    """Names the first ``most``, and counts them by reason where there are more."""
    if not skipped:
        return
    print(f"left out {len(skipped)} utterances:", file=sys.stderr)
    if by_reason and len(skipped) > most:
        for reason, count in by_reason.items():
            print(f"  {count} × {reason}", file=sys.stderr)
        print(f"the first {most} of them:", file=sys.stderr)
    for name, reason in list(skipped.items())[:most]:
        print(f"  {name}: {reason.removeprefix(f'{name}: ')}", file=sys.stderr)
