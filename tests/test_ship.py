"""What is published recognises as what was trained, holds nothing of the machine, and can be fetched."""

import hashlib
import shutil

import pytest
import torch
from omegaconf import OmegaConf

from asrlib.build import build_encoder, build_features
from asrlib.checkpoint import find_damage, load_acoustic_model, read_state, save_checkpoint
from asrlib.configs import compose
from asrlib.download import Downloader, load_manifest
from asrlib.download.manifest import REPOSITORY
from asrlib.model import AcousticModel
from asrlib.ship import _without_places, manifest_entries, ship
from asrlib.text import CTCTextEncoder

ENCODER = CTCTextEncoder("abc ")


@pytest.fixture
def run(tmp_path):
    """A function that makes a run; ``change`` is called with its encoder."""

    def make(*overrides, change=lambda encoder: None):
        config = compose("train", "model=mlp", "model.width=8", "datasets.root=data", *overrides)
        torch.manual_seed(0)
        features = build_features(config)
        model = AcousticModel(features, build_encoder(config, features, ENCODER))
        change(model.encoder)
        path = tmp_path / "run/checkpoints/best"
        save_checkpoint(
            path, model, config, ENCODER, {"command": f"python train.py {tmp_path}/x/y"}
        )
        return tmp_path / "run"

    return make


def test_it_is_half_the_size_and_hears_the_same(run, tmp_path):
    path = run("model.width=64")
    (tmp_path / "lm.arpa").write_text("a language model")
    ship(path, tmp_path / "small", tmp_path / "lm.arpa")
    assert find_damage(tmp_path / "small") is None
    assert (tmp_path / "small/lm.arpa").read_text() == "a language model"
    weights = "model.safetensors"
    sizes = [(f / weights).stat().st_size for f in (path / "checkpoints/best", tmp_path / "small")]
    assert sizes[1] < 0.55 * sizes[0]
    audio, length = torch.randn(1, 16000), torch.tensor([16000])
    before, after = (load_acoustic_model(f)[0](audio, length) for f in (path, tmp_path / "small"))
    assert after["log_probs"].dtype == torch.float32
    torch.testing.assert_close(before["log_probs"], after["log_probs"], atol=5e-3, rtol=0)
    assert not torch.equal(before["log_probs"], after["log_probs"])


def test_places_of_this_machine_are_not_published(run, tmp_path):
    with pytest.raises(ValueError, match=r"datasets\.root=/somewhere"):
        ship(run("datasets.root=/somewhere"), tmp_path / "small")
    assert not (tmp_path / "small").exists()
    runs = (f"run_dir={tmp_path}/two", f"init_from={tmp_path}/one")
    ship(run(*runs), tmp_path / "small")
    assert read_state(tmp_path / "small") == {"command": "python train.py y"}
    config = OmegaConf.load(tmp_path / "small/config.yaml")
    assert (config.run_dir, config.init_from) == ("two", "one"), (
        "what a run was called is no secret"
    )
    best = f"{tmp_path}/one/checkpoints/best"
    ship(run(f"init_from={best}"), tmp_path / "small")
    assert OmegaConf.load(tmp_path / "small/config.yaml").init_from == "one"


@pytest.mark.parametrize(
    ("told", "published"),
    [
        ("/home/me/a.wav: broken", "a.wav: broken"),
        ("first\n/home/me/a.wav", "first\na.wav"),
        (
            "'datasets.noise_dir=${datasets.root}/noise'",
            "'datasets.noise_dir=${datasets.root}/noise'",
        ),
        ("files=[**/*] x/y", "files=[**/*] x/y"),
        ("run_dir=~/x", "run_dir=~/x"),
        ("https://host/a/b", "https://host/a/b"),
    ],
)
def test_of_absolute_paths_the_names_are_published_and_nothing_else_changes(told, published):
    assert _without_places({"a": [told, 1]}) == {"a": [published, 1]}


def test_the_card_of_what_was_published_before_stays_and_its_weights_of_decoding_go(run, tmp_path):
    (tmp_path / "small/decoding").mkdir(parents=True)
    (tmp_path / "small/README.md").write_text("the card")
    ship(run(), tmp_path / "small")
    assert (tmp_path / "small/README.md").read_text() == "the card"
    assert not (tmp_path / "small/decoding").exists()


def test_weights_that_float16_cannot_hold_are_refused(run, tmp_path):
    def change(encoder):
        next(encoder.parameters()).data[0] = 1e5

    with pytest.raises(ValueError, match="float16"):
        ship(run(change=change), tmp_path / "small")


def test_its_entries_fetch_it(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ship(run(), tmp_path / "small")
    relative = (tmp_path / "small").relative_to(tmp_path)
    entries = manifest_entries(relative)
    (tmp_path / "small/tune").mkdir()
    (tmp_path / "small/tune/log_probs-val.safetensors").touch()
    assert manifest_entries(relative) == entries
    shutil.rmtree(tmp_path / "small/tune")
    for entry in entries.values():
        entry["sources"] = [{"file": str(tmp_path / entry["destination"])}]
    OmegaConf.save({"default": [*entries], "resources": entries}, tmp_path / "resources.yaml")
    manifest = load_manifest(tmp_path / "resources.yaml")
    for resource in manifest.choose([]):
        Downloader(tmp_path / "elsewhere").get(resource)
    files = [p.name for p in (tmp_path / "small").iterdir()]
    assert sorted(files) == sorted(p.name for p in (tmp_path / "elsewhere/small").iterdir())
    load_acoustic_model(tmp_path / "elsewhere/small")


def test_the_manifest_has_what_is_shipped_as_it_is():
    manifest = load_manifest()
    for name in manifest.default:
        resource = manifest.resources[name]
        [source] = [s for s in resource.sources if s.kind == "file"]
        assert source.where == resource.destination
        content = (REPOSITORY / source.where).read_bytes()
        assert hashlib.sha256(content).hexdigest() == resource.sha256, "run python -m asrlib.ship"
