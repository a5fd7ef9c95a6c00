"""Batches are the same from any number of workers; a file that cannot be read does not stop them."""

import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch

from asrlib.augmentations import (
    Codec,
    ColoredNoise,
    Gain,
    NoiseFiles,
    Speed,
    SyntheticRoom,
    WaveformAugmentations,
)
from asrlib.data import CustomDirDataset, LibriSpeechDataset, collate, read_audio
from asrlib.data.dataset import Item, LongItem
from asrlib.data.loader import make_loader
from asrlib.text import CTCTextEncoder


def loaded(dataset, num_workers, epochs=2):
    loader = make_loader(dataset, batch_seconds=2.5, num_workers=num_workers, seed=4, shuffle=True)
    batches = []
    for epoch in range(epochs):
        loader.batch_sampler.set_epoch(epoch)
        batches.append(list(loader))
    return batches


def assert_same_batch(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[key]), key
        else:
            assert value == other[key], key


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker")
@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_do_not_change_a_single_bit(librispeech_dir, noise_dir, num_workers):
    augmentations = {
        "speed": Speed(),
        "gain": Gain(p=0.8),
        "room": SyntheticRoom(p=0.8),
        "colored": ColoredNoise(p=0.8),
        "codec": Codec(p=0.8),
        "files": NoiseFiles(str(noise_dir), p=0.8),
    }
    dataset = LibriSpeechDataset(
        librispeech_dir,
        ["train", "dev"],
        text_encoder=CTCTextEncoder(),
        augmentations=WaveformAugmentations(augmentations, seed=4),
        training=True,
    )
    alone, together = loaded(dataset, 0), loaded(dataset, num_workers)
    for epoch, other_epoch in zip(alone, together, strict=True):
        assert len(epoch) > 2
        for batch, other in zip(epoch, other_epoch, strict=True):
            assert_same_batch(batch, other)
    orders = [[id for batch in epoch for id in batch["utterance_id"]] for epoch in alone]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_foretold_durations_are_those_of_the_batches(librispeech_dir):
    dataset = LibriSpeechDataset(
        librispeech_dir,
        ["train"],
        augmentations=WaveformAugmentations({"speed": Speed((0.5, 2.0))}, seed=0),
    )
    for epoch in range(3):
        real = [len(dataset[epoch, i].audio) / 16_000 for i in range(len(dataset))]
        np.testing.assert_allclose(dataset.durations(epoch), real, atol=1e-3)


def test_a_batch_has_the_keys_types_and_lengths_of_its_table(librispeech_dir):
    encoder = CTCTextEncoder()
    dataset = LibriSpeechDataset(librispeech_dir, ["train"], text_encoder=encoder)
    batch = collate([dataset[0, i] for i in (0, 4, 2)])
    assert set(batch) == {
        "audio",
        "audio_length",
        "text",
        "text_encoded",
        "text_encoded_length",
        "utterance",
        "utterance_id",
        "audio_path",
        "skipped",
        "long",
    }
    assert batch["utterance_id"] == ["11-7-0000", "12-7-0004", "11-7-0002"]
    assert batch["text"] == ["one two", "go", "a cat sat on the mat"]
    assert [u.speaker for u in batch["utterance"]] == ["11", "12", "11"]
    assert [u.text for u in batch["utterance"]] == batch["text"]
    assert [u.path for u in batch["utterance"]] == batch["audio_path"]
    assert batch["skipped"] == batch["long"] == []
    assert batch["audio"].dtype == torch.float32
    for key in ("audio_length", "text_encoded", "text_encoded_length"):
        assert batch[key].dtype == torch.int64
    assert batch["audio_length"].tolist() == [6400, 12_800, 9600]
    assert batch["audio"].shape == (3, 12_800)
    assert batch["text_encoded_length"].tolist() == [7, 2, 20]
    assert batch["text_encoded"].shape == (3, 20)
    for row, tokens, audio_length, text_length, text in zip(
        batch["audio"],
        batch["text_encoded"],
        batch["audio_length"],
        batch["text_encoded_length"],
        batch["text"],
        strict=True,
    ):
        assert row[:audio_length].abs().max() > 0.4
        assert not row[audio_length:].any()
        assert encoder.decode(tokens[:text_length].tolist()) == text
        assert not tokens[text_length:].any()


def test_without_texts_there_are_no_labels(custom_dir):
    dataset = CustomDirDataset(custom_dir, text_encoder=CTCTextEncoder())
    batch = collate([dataset[0, i] for i in range(4)])
    assert batch["text"] == ["one two", "don't stop", "a cat sat on the mat", None]
    assert "text_encoded" not in batch
    assert batch["audio"].shape[0] == 4


def test_an_empty_text_has_no_labels_but_a_place(custom_dir):
    (custom_dir / "transcriptions" / "a2-bob-b.txt").write_text("...")
    dataset = CustomDirDataset(custom_dir, text_encoder=CTCTextEncoder())
    batch = collate([dataset[0, i] for i in range(2)])
    assert batch["text_encoded_length"].tolist() == [7, 0]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_broke_after_indexing_is_named_and_the_rest_goes_on(custom_dir, num_workers):
    dataset = CustomDirDataset(custom_dir)
    broken = custom_dir / "audio" / "a2-bob-b.WAV"
    broken.write_text("no longer audio")
    (batch,) = make_loader(dataset, batch_seconds=60, num_workers=num_workers)
    assert sorted(batch["utterance_id"]) == ["a1-ann-b", "a3-ann-b", "a4-bob-b"]
    assert len(batch["audio"]) == len(batch["audio_length"]) == len(batch["text"]) == 3
    (skipped,) = batch["skipped"]
    assert skipped.utterance.id == "a2-bob-b"
    assert str(broken) in skipped.reason


def test_a_batch_of_which_nothing_can_be_read_has_names_alone(custom_dir):
    dataset = CustomDirDataset(custom_dir)
    for path in (custom_dir / "audio").iterdir():
        path.unlink()
    (batch,) = make_loader(dataset, batch_seconds=60)
    assert "audio" not in batch
    assert {skipped.utterance.id for skipped in batch["skipped"]} == {
        "a1-ann-b",
        "a2-bob-b",
        "a3-ann-b",
        "a4-bob-b",
    }


def test_what_is_too_long_for_a_batch_is_named_and_not_read(custom_dir):
    dataset = CustomDirDataset(custom_dir, max_item_seconds=0.65)  # of 0.5, 0.6, 0.7 and 0.8
    (batch,) = make_loader(dataset, batch_seconds=60)
    assert sorted(batch["utterance_id"]) == ["a1-ann-b", "a2-bob-b"]
    assert sorted(item.utterance.id for item in batch["long"]) == ["a3-ann-b", "a4-bob-b"]
    assert batch["skipped"] == []


def test_what_is_too_long_for_a_batch_is_augmented_like_the_rest(custom_dir, noise_dir):
    noise = WaveformAugmentations({"n": NoiseFiles(str(noise_dir), p=1.0)}, seed=0, fixed=True)
    dataset = CustomDirDataset(custom_dir, augmentations=noise, max_item_seconds=0.65)
    items = {dataset.utterances[i].id: dataset[5, i] for i in range(len(dataset))}
    for id, item in items.items():
        audio = item.audio if isinstance(item, Item) else np.concatenate(list(item.pieces()))
        expected = noise(read_audio(item.utterance.path), 0, id)
        np.testing.assert_array_equal(audio, expected)
    assert [isinstance(item, LongItem) for item in items.values()] == [False, False, True, True]


def test_a_folder_smaller_than_a_batch_is_one_batch(custom_dir):
    assert len(make_loader(CustomDirDataset(custom_dir), batch_seconds=1e6)) == 1


class Deadly(CustomDirDataset):
    """Kills the worker that reads item ``i`` of ``epoch``, as often as ``lives`` has files to lose."""

    def __init__(self, data_dir, lives, epoch=1, i=2):
        super().__init__(data_dir)
        self.lives, self.deadly = lives, (epoch, i)

    def __getitem__(self, key):
        if key == self.deadly and (left := sorted(self.lives.iterdir())):
            left[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(key)


@pytest.fixture
def lives(tmp_path, monkeypatch):
    """A function that makes a folder of so many files."""
    # how often PyTorch looks whether workers live while it waits for them: 5 seconds otherwise
    waiting = torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(waiting, "__defaults__", (0.1,))

    def make(count):
        folder = tmp_path / "lives"
        folder.mkdir()
        for i in range(count):
            (folder / str(i)).touch()
        return folder

    return make


def singly(dataset, num_workers):
    """Three epochs of batches of one utterance."""
    loader = make_loader(dataset, batch_seconds=0.1, num_workers=num_workers, shuffle=True)
    epochs = []
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch, start=1)
        epochs.append(list(loader))
    return epochs


@pytest.mark.parametrize("deaths", [1, 2])
def test_when_a_worker_dies_the_batches_are_still_the_same(custom_dir, lives, capsys, deaths):
    expected = singly(CustomDirDataset(custom_dir), num_workers=0)
    found = singly(Deadly(custom_dir, lives(deaths)), num_workers=2)
    for one, other in zip(expected, found, strict=True):
        assert len(one) == 3
        for batch, other_batch in zip(one, other, strict=True):
            assert_same_batch(batch, other_batch)
    assert capsys.readouterr().err.count("new workers go on") == deaths


def test_workers_that_die_again_and_again_at_a_batch_are_an_error(custom_dir, lives):
    with pytest.raises(RuntimeError, match=r"died 3 times at the same batch.*num_workers"):
        singly(Deadly(custom_dir, lives(20)), num_workers=2)


def test_a_worker_that_dies_between_epochs_is_replaced(custom_dir, lives):
    lives(0)
    loader = make_loader(CustomDirDataset(custom_dir), batch_seconds=0.1, num_workers=1)
    before = list(loader)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    worker.join()
    for one, other in zip(before, loader, strict=True):
        assert_same_batch(one, other)


def test_the_death_of_a_worker_interrupts_nothing_but_the_loader(custom_dir, lives):
    handler = signal.getsignal(signal.SIGCHLD)
    batches = iter(make_loader(Deadly(custom_dir, lives(1), 0, 1), 0.1, num_workers=1))
    first = next(batches)
    (worker,) = multiprocessing.active_children()
    worker.join()  # it died of an item read ahead; nothing here is interrupted
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert len([first, *batches]) == 4
