"""Fixtures that several test files share. No test writes outside pytest's temporary folders."""

from pathlib import Path

import pytest
import soundfile
import torch

from tests.corpus import write_parts
from tests.signals import hiss, tone

WORDS = ["one two", "don't stop", "a cat sat on the mat", "three", "go", "yes and no", "see", "ten"]


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Keeps the user's cache of indexes out of the tests, and the tests out of it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("ASRLIB_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def no_reports_home():
    """The tracking libraries report their own errors over the network unless told not to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("COMET_ERROR_TRACKING_ENABLE", "false")
        yield


@pytest.fixture(scope="session", autouse=True)
def few_threads():
    """Small tensors on a shared machine: threads would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def speech_dir():
    """The real recordings beside the checkout, which are not part of the repository."""
    folder = Path(__file__).parents[2] / "shared" / "speech"
    if not folder.is_dir():
        pytest.skip(f"no real speech in {folder}")
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """train, dev and test for ``tests.corpus.tiny_overrides``; who changes a file makes a copy."""
    return write_parts(tmp_path_factory.mktemp("corpus"), train=6, dev=6, test=6)


@pytest.fixture
def librispeech_dir(tmp_path):
    """LibriSpeech's layout: two parts, three speakers, eight clips of 0.4–1.1 s, several formats."""
    root = tmp_path / "corpus"
    suffixes = ["flac", "FLAC", "wav", "ogg", "flac", "WAV", "mp3", "opus"]
    for i, (words, suffix) in enumerate(zip(WORDS, suffixes, strict=True)):
        part, speaker = ("train", 11 + i // 3) if i < 6 else ("dev", 13)
        chapter = root / part / str(speaker) / "7"
        chapter.mkdir(parents=True, exist_ok=True)
        name = f"{speaker}-7-{i:04d}"
        format = {"ogg": "OGG", "opus": "OGG"}.get(suffix, suffix.upper())
        subtype = {"ogg": "VORBIS", "opus": "OPUS"}.get(suffix)
        samples = tone(200 + 50 * i, 0.4 + 0.1 * i)
        soundfile.write(
            chapter / f"{name}.{suffix}", samples, 16_000, format=format, subtype=subtype
        )
        with open(chapter / f"{speaker}-7.trans.txt", "a", encoding="utf-8") as file:
            file.write(f"{name} {words.upper()}\n")
    return root


@pytest.fixture
def custom_dir(tmp_path):
    """The custom layout: four recordings, the last one without its transcription."""
    root = tmp_path / "custom"
    (root / "audio").mkdir(parents=True)
    (root / "transcriptions").mkdir()
    for i, name in enumerate(["a1-ann-b.wav", "a2-bob-b.WAV", "a3-ann-b.flac", "a4-bob-b.ogg"]):
        soundfile.write(root / "audio" / name, tone(300, 0.5 + 0.1 * i), 16_000)
        if i < 3:
            text = root / "transcriptions" / f"{name.split('.')[0]}.txt"
            text.write_text(f"{WORDS[i].capitalize()}.\n", encoding="utf-8")
    return root


@pytest.fixture
def noise_dir(tmp_path):
    """Two background recordings, one of them shorter than any utterance."""
    root = tmp_path / "noise"
    root.mkdir()
    soundfile.write(root / "long.wav", hiss(3.0, seed=1), 16_000)
    soundfile.write(root / "short.flac", hiss(0.1, seed=2), 16_000)
    return root
