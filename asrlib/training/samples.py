"""What a training shows of itself: random utterances as the model saw and heard them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from asrlib.data import SAMPLE_RATE, SpeechDataset, collate, read_audio
from asrlib.data.dataset import Item
from asrlib.decoding.contract import decode
from asrlib.metrics import score_utterance
from asrlib.metrics.attention import coverage, monotonicity
from asrlib.model.acoustic import Augment
from asrlib.randomness import generator
from asrlib.tracking.figures import attention_figure, spectrogram_figure

if TYPE_CHECKING:
    from asrlib.training.trainer import Trainer


def random_items(dataset: SpeechDataset, count: int, epoch: int, seed: int) -> list[Item]:
    """Up to ``count`` readable items of ``epoch``, chosen by (seed, epoch)."""
    order = generator(seed, epoch, "samples").permutation(len(dataset))[:count]
    items = [dataset[epoch, int(i)] for i in order]
    return [item for item in items if isinstance(item, Item)]


def log_samples(trainer: Trainer) -> dict[str, float]:
    """Writes random samples of train and dev: texts with their errors, a spectrogram, its audio.

    Those of train carry the augmentations of the epoch just trained, and the first of them is
    written without them as well, so that ear and eye can compare. Of a model with a speller the
    attention of the first is drawn. Leaves the model in evaluation mode.

    Returns:
        what is to be written as scalars: of such a model, how it attends.
    """
    scalars = {}
    epoch, count = trainer.progress.epoch, trainer.options.log_samples
    train, val = trainer.train_loader.dataset, trainer.val_loader.dataset
    if items := random_items(train, count, epoch, trainer.seed):
        ids = [item.utterance.id for item in items]
        augment = partial(trainer.augmentations, epoch=epoch, utterance_ids=ids)
        scalars |= _log_texts(trainer, "train", items, augment)
        _log_first(trainer, "train", items[0], augment)
        clean = replace(items[0], audio=read_audio(items[0].utterance.path))
        _log_first(trainer, "clean_train", clean, None)
    if items := random_items(val, count, epoch, trainer.seed):
        scalars |= _log_texts(trainer, "val", items, None)
        _log_first(trainer, "val", items[0], None)
    return scalars


@torch.no_grad()
def _forward(trainer: Trainer, items: list[Item], augment: Augment | None) -> dict:
    model, batch = trainer.model.eval(), collate(items)
    views = [] if augment is None else [augment]
    audio = batch["audio"].to(model.device)
    return batch | model(audio, batch["audio_length"], *views, labels=batch)


def _log_texts(
    trainer: Trainer, part: str, items: list[Item], augment: Augment | None
) -> dict[str, float]:
    """What was heard, and how a speller that is told the true labels attends."""
    output, step = _forward(trainer, items, augment), trainer.progress.step
    hypotheses = decode(trainer.decoder, output)
    rows = [_row(item, h.text) for item, h in zip(items, hypotheses, strict=True)]
    trainer.writer.table(step, f"samples_{part}", rows)
    if "attention" not in output:
        return {}
    lengths = zip(output["text_encoded_length"] + 1, output["log_probs_length"], strict=True)
    maps = [
        attention[:steps, :frames].numpy()
        for attention, (steps, frames) in zip(output["attention"].cpu(), lengths, strict=True)
    ]
    pieces = [trainer.text_encoder.pieces[i] for i in output["text_encoded"][0][: len(maps[0]) - 1]]
    seconds = trainer.model.samples_per_frame / SAMPLE_RATE
    title = f"{part}: {items[0].utterance.id}"
    trainer.writer.figure(
        step, f"attention_{part}", attention_figure(maps[0], [*pieces, "</s>"], seconds, title)
    )
    return {
        f"attention_monotonicity_{part}": sum(map(monotonicity, maps)) / len(maps),
        f"attention_coverage_{part}": sum(map(coverage, maps)) / len(maps),
    }


def _log_first(trainer: Trainer, name: str, item: Item, augment: Augment | None) -> None:
    """The spectrogram as the encoder gets it, and the audio that it was made of."""
    if augment is not None:
        augment = partial(augment, utterance_ids=[item.utterance.id])
    spectrogram = _forward(trainer, [item], augment)["spectrogram"][0].float().cpu().numpy()
    features, title = trainer.model.features, f"{name}: {item.utterance.id}"
    figure = spectrogram_figure(spectrogram, title, features.f_min, features.f_max)
    trainer.writer.figure(trainer.progress.step, f"spectrogram_{name}", figure)
    trainer.writer.audio(trainer.progress.step, f"audio_{name}", item.audio)


def _row(item: Item, predict: str) -> dict:
    scored = score_utterance(item.utterance.text or "", predict)
    return {
        "utterance_id": item.utterance.id,
        "target": item.utterance.text,
        "predict": predict,
        "CER": _number(scored.characters.rate),
        "WER": _number(scored.words.rate),
    }


def _number(rate: float) -> float | None:
    """JSON has no nan; an empty target has no error rate."""
    return None if math.isnan(rate) else rate
