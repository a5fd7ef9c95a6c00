"""Shards hold what their source gave, to the bit, and say so when they no longer do."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from asrlib.configs import compose
from asrlib.data import (
    AudioError,
    CustomDirDataset,
    LibriSpeechDataset,
    MixtureDataset,
    ShardDataset,
    read_audio,
    shards,
)
from asrlib.data.audio import SAMPLE_RATE, audio_info
from asrlib.data.dataset import SkippedItem
from asrlib.data.shards import FORMATS, to_int16, write_shards
from asrlib.training import train
from tests.corpus import tiny_overrides, write_parts
from tests.processes import PoolInThisProcess
from tests.signals import hiss
from tests.survival import files_of
from tests.test_training import assert_equal_weights, weights

SMALL = 0.05  # megabytes: two or three utterances


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Processes cost seconds to start; that there are any is tested by the command."""
    monkeypatch.setattr(shards, "ProcessPoolExecutor", PoolInThisProcess)


@pytest.fixture
def source(librispeech_dir):
    """Of several formats; one is stereo at 44.1 kHz and louder than full scale."""
    path = next(librispeech_dir.rglob("12-7-0003.ogg"))
    path.unlink()
    loud = 20 * np.stack([hiss(0.7, seed=1), hiss(0.7, seed=2)], axis=1)
    soundfile.write(path.with_suffix(".wav"), loud, 44_100, subtype="FLOAT")
    return LibriSpeechDataset(librispeech_dir, ["train", "dev"])


@pytest.mark.parametrize("format", FORMATS)
def test_they_are_the_source_rounded_to_sixteen_bits(source, tmp_path, format):
    write_shards(source, tmp_path / "out", format, SMALL)
    assert len(list((tmp_path / "out").glob(f"*.{format}"))) > 2
    found = ShardDataset(tmp_path / "out")
    assert found.fingerprint() == source.fingerprint()
    peak = 0
    for i, utterance in enumerate(source.utterances):
        audio = found[0, i].audio
        wanted = np.clip(np.round(source[0, i].audio.astype(np.float64) * 32768), -32768, 32767)
        np.testing.assert_array_equal(audio * 32768, wanted)
        assert audio.dtype == np.float32
        peak = max(peak, np.abs(source[0, i].audio).max())
        other = found.utterances[i]
        assert audio_info(other.path).duration == pytest.approx(len(audio) / SAMPLE_RATE)
        assert (other.id, other.text, other.speaker) == (
            utterance.id,
            utterance.text,
            utterance.speaker,
        )
    assert peak > 1  # the loud one, which was clipped
    assert read_audio(found.utterances[0].path, max_seconds=0.2) is None


def test_sixteen_bits_survive_there_and_back():
    every = np.arange(-32768, 32768).astype("<i2")
    np.testing.assert_array_equal(to_int16(every / np.float32(32768)), every)
    np.testing.assert_array_equal(to_int16(np.array([-2.0, 2.0])), [-32768, 32767])


def test_a_long_utterance_comes_in_pieces_that_are_the_whole(tmp_path):
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "long.flac", hiss(65.0), 16_000)
    dataset = CustomDirDataset(tmp_path)
    (utterance,) = write_shards(dataset, tmp_path / "out").utterances
    np.testing.assert_array_equal(read_audio(utterance.path), dataset[0, 0].audio)


def test_a_read_only_folder_is_enough_and_may_be_elsewhere(source, tmp_path):
    write_shards(source, tmp_path / "out", megabytes=SMALL)
    os.rename(tmp_path / "out", tmp_path / "input")
    before = files_of(tmp_path / "input")
    for path in [*before, tmp_path / "input"]:
        path.chmod(0o555)
    dataset = ShardDataset(tmp_path / "input", training=True, max_duration=0.85)
    assert len(dataset) == 5
    assert dataset.skipped_by_reason() == {"not 0.1–0.85 s long": 3}
    assert dataset[0, 0].audio.any()
    assert files_of(tmp_path / "input") == before
    (tmp_path / "input").chmod(0o755)


def test_what_cannot_be_read_is_left_out_by_name(source, tmp_path):
    broken = source.utterances[1]
    with open(broken.path, "w") as file:
        file.write("no longer audio")
    index = write_shards(source, tmp_path / "out", megabytes=SMALL)
    assert len(index.utterances) == len(source) - 1
    shards = ShardDataset(tmp_path / "out")
    assert "not readable as audio" in shards.skipped[broken.path]
    assert [*shards.skipped_by_reason()] == ["not readable as audio"]


def interrupted(monkeypatch, source, out, after):
    """Prepares until ``after`` utterances were read."""
    reads = iter(range(after))

    def read(path):
        if next(reads, None) is None:
            raise KeyboardInterrupt
        return read_audio(path)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "read_audio", read)
        with pytest.raises(KeyboardInterrupt):
            write_shards(source, out, megabytes=SMALL)


def test_an_interrupted_preparation_goes_on_with_what_is_missing(source, tmp_path, monkeypatch):
    write_shards(source, tmp_path / "whole", megabytes=SMALL)
    out = tmp_path / "out"
    interrupted(monkeypatch, source, out, after=5)
    with pytest.raises(FileNotFoundError, match="interrupted; the same command"):
        ShardDataset(out)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.i16")}
    assert kept
    (out / ".shard-00099.i16.1.tmp").write_text("of a killed process")
    next(iter(kept)).with_suffix(".jsonl").unlink()  # as if killed between a shard and its index
    write_shards(source, out, megabytes=SMALL)
    assert [path.stat().st_mtime_ns != time for path, time in kept.items()].count(True) == 1
    content = {path.name: content for path, content in files_of(out).items()}
    assert content == {p.name: content for p, content in files_of(tmp_path / "whole").items()}
    monkeypatch.setattr(shards, "read_audio", lambda *_: pytest.fail("written again"))
    write_shards(source, out, megabytes=SMALL)  # which is done already


def test_other_data_do_not_go_on_in_a_folder(source, librispeech_dir, tmp_path, monkeypatch):
    other = LibriSpeechDataset(librispeech_dir, ["dev"])
    interrupted(monkeypatch, source, tmp_path / "out", after=5)
    write_shards(other, tmp_path / "out", "flac", megabytes=SMALL)
    assert not list((tmp_path / "out").glob("*.i16")), "what was given up stays for ever"
    found = ShardDataset(tmp_path / "out")
    assert [u.id for u in found.utterances] == [u.id for u in other.utterances]
    assert found[0, 1].audio.any()
    with pytest.raises(FileExistsError, match=r"holds 2 utterances.*choose another out"):
        write_shards(source, tmp_path / "out", megabytes=SMALL)


@pytest.mark.parametrize("format", FORMATS)
def test_damage_is_found_and_named(source, tmp_path, format):
    write_shards(source, tmp_path / "out", format, SMALL)
    first, second, *others = sorted((tmp_path / "out").glob(f"*.{format}"))
    content = bytearray(first.read_bytes())
    content[-1] ^= 1  # of the last utterance in it
    first.write_bytes(content)
    dataset = ShardDataset(tmp_path / "out")
    items = [dataset[0, i] for i in range(len(dataset))]
    (skipped,) = [item for item in items if isinstance(item, SkippedItem)]
    assert f"{first}#" in skipped.reason
    assert "damaged" in skipped.reason
    path = next(u.path for u in dataset.utterances if str(second) in u.path)
    second.write_bytes(second.read_bytes()[:-2])
    with pytest.raises(ValueError, match=rf"{second} has \d+ bytes, was written with \d+"):
        ShardDataset(tmp_path / "out")
    others[0].unlink()
    second.unlink()
    with pytest.raises(ValueError, match="has None bytes"):
        ShardDataset(tmp_path / "out")
    with pytest.raises(AudioError, match=r"shard-00001.*No such file"):
        read_audio(path.replace(str(tmp_path), f"{tmp_path}/."))  # one not mapped yet


def test_formats_and_mixtures_that_make_no_sense_are_refused(source, tmp_path, corpus):
    with pytest.raises(ValueError, match="format=mp3: choose one of i16, flac"):
        write_shards(source, tmp_path, "mp3")
    section = {"_target_": "asrlib.data.CustomDirDataset", "data_dir": str(corpus / "dev")}
    with pytest.raises(ValueError, match="prepare its parts one by one"):
        write_shards(MixtureDataset({"a": section}), tmp_path)


def test_a_training_on_shards_alone_or_mixed_is_that_on_the_files(tmp_path):
    corpus = write_parts(tmp_path / "corpus", train=6, test=4)
    out = tmp_path / "shards"
    for part in ("train", "test"):
        write_shards(CustomDirDataset(corpus / part), out / part, megabytes=SMALL)
    for name, (target, root) in {
        "files": ("CustomDirDataset", corpus),
        "shards": ("ShardDataset", out),
    }.items():
        config = compose("train", *tiny_overrides(corpus, tmp_path / name), "trainer.epochs=1")
        section = {"_target_": f"asrlib.data.{target}"}
        config.datasets.train = {
            "_target_": "asrlib.data.MixtureDataset",
            "_recursive_": False,
            "parts": {
                "a": section | {"data_dir": str(root / "train"), "weight": 0.5},
                "b": section | {"data_dir": str(root / "test"), "weight": 2},
            },
        }
        config.datasets.val = section | {"data_dir": str(root / "test")}
        assert train(config).finished
    assert_equal_weights(weights(tmp_path / "files"), weights(tmp_path / "shards"))


def test_the_command_prepares_a_part_as_a_training_would(tmp_path):
    corpus = write_parts(tmp_path / "corpus", train=5)
    first = min((corpus / "train/transcriptions").iterdir())
    first.write_text("room 5")
    options = ["datasets=an4", f"datasets.root={corpus}", "part=train", f"out={tmp_path / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "asrlib.data.shards", *options, "num_workers=0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "4 utterances" in done.stdout
    assert "left out 1: its text has characters whose sound is not known" in done.stderr
    about, *rows = map(json.loads, (tmp_path / "out/index.jsonl").read_text().splitlines())
    assert about["source"].startswith("4 utterances")
    assert [*rows[0]] == ["id", "path", "text", "duration", "speaker"]
    dataset = ShardDataset(tmp_path / "out", training=True)
    assert len(dataset) == 4
    assert "sound" in dataset.skipped[first.stem]
