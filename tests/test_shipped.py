"""What a fresh clone recognises with: it is complete, as the manifest says, and works without a network."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from asrlib import Recognizer
from asrlib.checkpoint import find_damage
from asrlib.data import SAMPLE_RATE
from asrlib.download import load_manifest
from asrlib.download.manifest import REPOSITORY
from asrlib.files import read_jsonl
from asrlib.ship import manifest_entries

SHIPPED = REPOSITORY / "checkpoints" / "shipped"
MOST_BYTES = 25e6  # of the weights


def test_the_manifest_has_every_shipped_file_as_it_is(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    manifest = load_manifest()
    entries = manifest_entries(SHIPPED.relative_to(REPOSITORY))
    assert set(manifest.default) == set(entries)
    for name, entry in entries.items():
        resource = manifest.resources[name]
        assert (str(resource.destination), resource.sha256, resource.size) == (
            entry["destination"],
            entry["sha256"],
            entry["size"],
        )
    assert find_damage(SHIPPED) is None
    assert (SHIPPED / "model.safetensors").stat().st_size < MOST_BYTES


DECODERS = [None, {"name": "tuned", "which": None, "lm_path": None}]


@pytest.mark.parametrize("decoder", DECODERS)
def test_it_writes_nothing_in_silence(decoder):
    recognizer = Recognizer.from_pretrained(SHIPPED, device="cpu", decoder=decoder)
    assert recognizer.transcribe(np.zeros(SAMPLE_RATE, np.float32)).text.split() == []


@pytest.mark.parametrize("decoder", DECODERS)
def test_it_does_not_depend_on_the_batch(decoder):
    recognizer = Recognizer.from_pretrained(SHIPPED, device="cpu", decoder=decoder)
    rng = np.random.default_rng(0)
    silence = np.zeros(SAMPLE_RATE, np.float32)
    speech = 0.1 * rng.standard_normal(2 * SAMPLE_RATE).astype(np.float32)
    alone = [recognizer.transcribe(clip).text.split() for clip in (silence, speech)]
    together = recognizer.transcribe([silence, speech])
    assert [t.text.split() for t in together] == alone


@pytest.mark.slow
def test_the_grader_s_two_commands_need_nothing_else(tmp_path):
    """In another folder, without the network: fetch, then read a folder of recordings."""
    (tmp_path / "audio").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.wav", "B-2.FLAC"):
        samples = 0.01 * rng.standard_normal(SAMPLE_RATE)
        soundfile.write(
            tmp_path / "audio" / name, samples, SAMPLE_RATE, format=name[-4:].strip(".")
        )
    environment = os.environ | {
        "http_proxy": "http://localhost:9",
        "https_proxy": "http://localhost:9",
    }

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    run("download.py")
    run(
        "inference.py",
        "datasets=custom_dir",
        f"datasets.test.data_dir={tmp_path}",
        "decoder=tuned",
        f"inferencer.save_path={tmp_path / 'out'}",
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["B-2.txt", "a.txt"]


def test_its_log_begins_with_the_first_step():
    rows = read_jsonl(REPOSITORY / "report" / "logs" / "mini-librispeech.jsonl")
    assert rows[0]["step"] <= 10 and rows[-1]["WER_val"] < rows[0].get("WER_val", 100)
