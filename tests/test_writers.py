"""What a training tells its writers is there when their files are read back."""

import json
import math
import struct
import zipfile

import pytest
import soundfile
import wandb

from asrlib.configs import compose
from asrlib.training import train
from tests.corpus import tiny_overrides

SCALARS = {
    "loss_train",
    "learning_rate_train",
    "grad_norm_train",
    "audio_seconds_per_second_train",
    "loss_val",
    "WER_val",
    "CER_val",
}
TABLES = {"samples_train", "samples_val"}
SHOWN = ("train", "clean_train", "val")
COLUMNS = ["utterance_id", "target", "predict", "CER", "WER"]
SAMPLES = 5


def run(corpus, run_dir, *overrides):
    options = [*tiny_overrides(corpus, run_dir), f"trainer.log_samples={SAMPLES}"]
    return train(compose("train", *options, "name=told", *overrides))


def wandb_records(path):
    """The protobuf records of a .wandb file: LevelDB's log format behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts = path.read_bytes(), 7, []
    assert data[:4] == b":W&B"
    while position < len(data):
        room = 32_768 - position % 32_768
        if room < 7:
            position += room
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        parts.append(data[position + 7 : position + 7 + size])
        position += 7 + size
        if kind in (1, 4):  # a whole record, or the last piece of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def test_the_local_log_holds_every_item(corpus, tmp_path):
    progress = run(corpus, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "logs/metrics.jsonl").open()]
    assert set().union(*rows) >= SCALARS
    for name in TABLES:
        table = tmp_path / f"logs/{name}-{progress.step:07d}.jsonl"
        samples = [json.loads(line) for line in table.open()]
        assert len({row["utterance_id"] for row in samples}) == SAMPLES
        assert list(samples[0]) == COLUMNS
    for name in SHOWN:
        assert list((tmp_path / "logs").glob(f"spectrogram_{name}-*.png"))
        audio = next((tmp_path / "logs").glob(f"audio_{name}-*.flac"))
        assert soundfile.info(audio).frames > 1000
    assert (tmp_path / "logs/learning_curves.png").stat().st_size > 5000
    heard, clean = (
        soundfile.read(tmp_path / f"logs/audio_{name}-{progress.step:07d}.flac")[0]
        for name in ("train", "clean_train")
    )
    assert len(heard) != len(clean) or abs(heard - clean).max() > 1e-3  # augmented, and as it was


def test_an_offline_wandb_file_holds_every_item(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    progress = run(corpus, tmp_path, "writer=wandb")
    wandb.teardown()  # ends the process that writes the file, on a busy machine after the run
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    logged, configured = {}, set()
    for record in wandb_records(file):
        for item in record.history.item:
            value = json.loads(item.value_json)
            if item.key or len(item.nested_key) == 1:
                logged.setdefault(item.key or item.nested_key[0], []).append(value)
            else:  # a field of a table, an image or a sound; the last step's stays
                name, field = item.nested_key
                logged.setdefault(name, {})[field] = value
        configured |= {u.key or u.nested_key[0] for u in record.run.config.update}
    assert set(logged) >= SCALARS | TABLES
    assert configured >= {"model", "optimizer", "trainer", "seed"}
    assert max(logged["_step"]) == progress.step
    for name in TABLES:
        assert (logged[name]["nrows"], logged[name]["ncols"]) == (SAMPLES, len(COLUMNS))
    folder = file.parent / "files"
    for name in SHOWN:
        assert (folder / logged[f"spectrogram_{name}"]["path"]).stat().st_size > 1000
        assert (folder / logged[f"audio_{name}"]["path"]).stat().st_size > 1000


def test_a_resumed_training_goes_on_with_the_same_wandb_run(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(corpus, tmp_path, "writer=wandb", "trainer.epochs=1")
    run(corpus, tmp_path, "writer=wandb", "trainer.epochs=1")
    files = [path.name for path in (tmp_path / "wandb").glob("offline-run-*/*.wandb")]
    assert len(files) == 2
    assert len(set(files)) == 1


def test_wandb_without_a_key_is_an_error_with_its_remedy(corpus, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(RuntimeError, match="WANDB_MODE=offline"):
        run(corpus, tmp_path, "writer=wandb")


def test_an_offline_cometml_archive_holds_every_item(corpus, tmp_path):
    pytest.importorskip("comet_ml")
    progress = run(corpus, tmp_path, "writer=cometml", "writer.others.comet.mode=offline")
    (path,) = (tmp_path / "comet").glob("*.zip")
    metrics, names, audio_bytes, parameters = {}, set(), [], set()
    with zipfile.ZipFile(path) as archive:
        for line in archive.read("messages.json").splitlines():
            message = json.loads(line)
            payload = message["payload"]
            if message["type"] == "metric_msg":
                metric = payload["metric"]
                metrics.setdefault(metric["metricName"], []).append(metric["step"])
            elif message["type"] == "parameter_msg":
                parameters.add(payload.get("param", payload.get("params"))["paramName"])
            elif message["type"] == "file_upload":
                about = payload["additional_params"]
                name = about.get("fileName") or about.get("figName", "")
                names.add(name)
                if name.startswith("audio_"):
                    audio_bytes.append(archive.getinfo(payload["file_path"]).file_size)
    assert set(metrics) >= SCALARS
    assert metrics["WER_val"][-1] == progress.step
    assert any(name.startswith("model|") for name in parameters)
    for name in TABLES | {f"audio_{part}" for part in SHOWN}:
        assert any(found.startswith(f"{name}-") for found in names), name
    assert {f"spectrogram_{part}" for part in SHOWN} <= names
    assert min(audio_bytes) > 1000


def test_cometml_without_a_key_is_an_error_with_its_remedy(corpus, tmp_path, monkeypatch):
    pytest.importorskip("comet_ml")
    monkeypatch.delenv("COMET_API_KEY", raising=False)
    monkeypatch.setenv("COMET_CONFIG", str(tmp_path / "none"))
    with pytest.raises(RuntimeError, match=r"writer\.others\.comet\.mode=offline"):
        run(corpus, tmp_path, "writer=cometml")


def test_a_resumed_log_repeats_no_step(tmp_path):
    from asrlib.tracking import LocalWriter

    writer = LocalWriter(tmp_path)
    for step in range(5):
        writer.scalars(step, {"loss_train": 1.0})
    with writer.metrics.open("a") as file:
        file.write('{"step": 5, "loss_tr')  # cut short by a kill
    LocalWriter(tmp_path).rewind(2, math.inf)
    assert [json.loads(line)["step"] for line in writer.metrics.open()] == [0, 1, 2]
