"""Starting from another training's weights, and training only some of them."""

import json

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn

from asrlib import checkpoint
from asrlib.build import build_encoder
from asrlib.configs import compose
from asrlib.metrics import ErrorRate
from asrlib.model import AcousticModel, LogMel
from asrlib.result import result_of, run_name
from asrlib.text import CTCTextEncoder
from asrlib.training import build_trainer, saving, train
from asrlib.training.transfer import freeze, start_from
from tests.corpus import tiny_overrides, write_parts

N_MELS = 20
ABC, XYZ, LONGER = CTCTextEncoder("abc"), CTCTextEncoder("xyz"), CTCTextEncoder("abcde")


def mlp_config(width=4):
    model = {"_target_": "asrlib.model.MLP", "width": width, "layers": 2, "context": 1}
    return OmegaConf.create({"model": model, "features": {"n_mels": N_MELS}})


def make_model(text_encoder, seed, config=None):
    torch.manual_seed(seed)
    features = LogMel(N_MELS)
    return AcousticModel(features, build_encoder(config or mlp_config(), features, text_encoder))


def copied(model):
    return {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}


@pytest.fixture
def source(tmp_path):
    """A run's folder with a best checkpoint of 4 labels, as wide as it has labels."""
    model = make_model(ABC, seed=1)
    best = tmp_path / "source/checkpoints/best"
    checkpoint.save_checkpoint(best, model, mlp_config(), ABC, state={})
    return tmp_path / "source"


def config_of(corpus, run_dir, *overrides):
    return compose("train", *tiny_overrides(corpus, run_dir), "trainer.epochs=1", *overrides)


def test_with_the_same_labels_every_tensor_is_taken_over(source, capsys):
    model = make_model(ABC, seed=2)
    assert start_from(source, model, ABC, mlp_config()) == []
    for name, tensor in make_model(ABC, seed=1).encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor), name
    assert "anew" not in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["", "listener."])
def test_a_trained_encoder_that_is_given_phones_says_at_first_what_it_said(tmp_path, prefix):
    plain = {"_target_": "asrlib.model.Conformer", "size": "xxs"}
    speller = {
        "_target_": "asrlib.model.LAS",
        "size": "xxs",
        "listener": plain | {"phone_layer": 1, "_partial_": True},
    }
    with_phones = speller if prefix else plain | {"phone_layer": 1}
    old, new = (
        OmegaConf.create({"model": m, "features": {"n_mels": N_MELS}}) for m in (plain, with_phones)
    )
    theirs = make_model(ABC, 1, old)
    checkpoint.save_checkpoint(tmp_path / "best", theirs, old, ABC, state={})
    ours = make_model(ABC, 2, new)
    kept = start_from(tmp_path / "best", ours, ABC, new)
    parts = ["from_phones.bias", "from_phones.weight", "phone_head.bias", "phone_head.weight"]
    assert [name for name in kept if "speller" not in name] == [prefix + name for name in parts]
    spectrogram, length = torch.randn(1, N_MELS, 60), torch.tensor([60])
    said = [model.eval().encoder(spectrogram, length) for model in (theirs, ours)]
    torch.testing.assert_close(said[1]["log_probs"], said[0]["log_probs"])
    assert said[1]["phone_log_probs"].isfinite().all()


@pytest.mark.parametrize("labels", [LONGER, XYZ])  # XYZ: as many, but others
def test_with_other_labels_the_head_alone_is_new_and_named(source, capsys, labels):
    model = make_model(labels, seed=2)
    before, theirs = copied(model), make_model(ABC, seed=1).encoder.state_dict()
    assert start_from(source, model, labels, mlp_config()) == ["head.bias", "head.weight"]
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, (before if "head" in name else theirs)[name]), name
    assert f"head.bias [{len(labels)}], head.weight [{len(labels)}, 4]" in capsys.readouterr().out


@pytest.mark.parametrize("labels", [ABC, LONGER])
def test_another_model_is_an_error_that_lists_what_differs(source, labels):
    wider = mlp_config(width=6)
    model = make_model(labels, 2, wider)
    before = copied(model)
    with pytest.raises(ValueError, match="another model") as error:
        start_from(source, model, labels, wider)
    assert "splice.weight: [4, 20, 3] there, [6, 20, 3] here" in str(error.value)
    assert ("head.bias" in str(error.value)) is False
    assert all(torch.equal(before[name], t) for name, t in model.encoder.state_dict().items())
    deeper = OmegaConf.merge(mlp_config(), {"model": {"layers": 3}})
    with pytest.raises(ValueError, match=r"hidden\.4\.weight: absent there, \[4, 4\] here"):
        start_from(source, make_model(labels, 2, deeper), labels, deeper)


def test_of_a_run_that_was_not_evaluated_the_newest_checkpoint_is_named(tmp_path):
    for step in (10, 20):
        (tmp_path / f"run/checkpoints/step-{step:08d}").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"not evaluated yet.*step-00000020$"):
        checkpoint.find_checkpoint(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*give the folder of a run"):
        checkpoint.find_checkpoint(tmp_path)


def test_a_training_starts_from_another_and_resumes_its_own(corpus, tmp_path):
    train(config_of(corpus, tmp_path / "old", "seed=1"))
    old = load_file(tmp_path / "old/checkpoints/best/model.safetensors")
    options = (f"init_from={tmp_path / 'old'}", "trainer.epochs=2")
    first = build_trainer(config_of(corpus, tmp_path / "new", *options))
    assert all(torch.equal(t, old[name]) for name, t in copied(first.model).items())
    spent = checkpoint.read_state(tmp_path / "old/checkpoints/best")
    assert first.progress.earlier == [spent["command"]]
    assert first.progress.train_seconds == spent["train_seconds"]
    assert first.progress.audio_seconds == spent["audio_seconds"] > 0
    first._train_epoch()
    assert first.progress.audio_seconds > spent["audio_seconds"]
    saving.save(first)
    again = build_trainer(config_of(corpus, tmp_path / "new", *options[1:], "init_from=gone"))
    saving.resume(again, again.start)
    assert again.progress.earlier == [spent["command"]]
    assert again.progress.audio_seconds == first.progress.audio_seconds
    assert all(torch.equal(t, copied(first.model)[name]) for name, t in copied(again.model).items())
    with pytest.raises(FileNotFoundError, match="gone"):
        build_trainer(config_of(corpus, tmp_path / "third", "init_from=gone"))


def row_of(folder, device="x"):
    """A row of results of it."""
    errors = ErrorRate()
    errors.add("a", "a", "utterance", "speaker")
    facts = {"test_data": "x", "decoder": "x", "parameters": 1, "device": device, "command": "x"}
    return result_of(folder, errors, **facts)


def test_a_row_names_the_devices_that_trained_and_tested(corpus, tmp_path):
    train(config_of(corpus, tmp_path / "old", "trainer.max_hours=1e-9"))
    state_file = checkpoint.find_latest(tmp_path / "old/checkpoints") / "state.json"
    state = json.loads(state_file.read_text())
    assert state["devices"] == ["cpu"] and row_of(state_file.parent, "cpu").device == "cpu"
    state_file.write_text(json.dumps(state | {"devices": ["A GPU"]}))
    assert row_of(state_file.parent, "cpu").device == "A GPU, tested on cpu"
    (state_file.parent / "checksums.json").unlink()
    train(config_of(corpus, tmp_path / "old"))
    resumed = row_of(tmp_path / "old/checkpoints/best", "cpu")
    assert resumed.device == "A GPU and cpu, tested on cpu"
    later = build_trainer(config_of(corpus, tmp_path / "new", f"init_from={tmp_path / 'old'}"))
    assert later.progress.devices == ["A GPU", "cpu"]


def test_without_a_reference_there_is_no_row(corpus, tmp_path):
    train(config_of(corpus, tmp_path / "run", "trainer.max_hours=1e-9"))
    facts = {
        "test_data": "x test",
        "decoder": "x",
        "parameters": 1,
        "device": "cpu",
        "command": "x",
    }
    with pytest.raises(ValueError, match="x test: none of its recordings has a transcript"):
        result_of(checkpoint.find_latest(tmp_path / "run/checkpoints"), ErrorRate(), **facts)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("outputs/step-two", "step-two"),
        ("outputs/x/checkpoints/best", "x"),
        ("x/checkpoints/step-000012", "x"),
        (None, ""),
    ],
)
def test_a_run_is_called_as_its_folder(folder, name):
    assert run_name(folder) == name


@pytest.mark.parametrize(("batches", "accumulate"), [(1, 1), (2, 1), (2, 2), (6, 3)])
def test_a_row_s_command_starts_as_many_processes_as_trained(corpus, tmp_path, batches, accumulate):
    options = [f"trainer.accumulate={accumulate}", "trainer.max_hours=1e-9"]
    train(config_of(corpus, tmp_path / "run", *options))
    folder = checkpoint.find_latest(tmp_path / "run/checkpoints")
    state = checkpoint.read_state(folder)
    state["facts"]["trainer.accumulate"] = f"{batches} batches a step"
    state["command"] = "python -u train.py 'a=[b c]'"
    (folder / "state.json").write_text(json.dumps(state))
    processes = batches // accumulate
    before = f"torchrun --nproc-per-node={processes}" if processes > 1 else "python -u"
    assert row_of(folder).command == f"{before} train.py 'a=[b c]' && x"


def test_fine_tuning_on_other_texts_keeps_the_pieces_of_words(corpus, tmp_path):
    pieces = ("text_encoder=bpe", "text_encoder.vocabulary_size=36")
    first = build_trainer(config_of(corpus, tmp_path / "old", *pieces))
    saving.save(first)
    others = write_parts(tmp_path / "others", train=9, dev=2)
    source = f"init_from={checkpoint.find_latest(tmp_path / 'old/checkpoints')}"
    again = build_trainer(config_of(others, tmp_path / "new", *pieces, source))
    assert again.text_encoder.pieces == first.text_encoder.pieces
    assert all(torch.equal(t, copied(first.model)[name]) for name, t in copied(again.model).items())
    alone = build_trainer(config_of(others, tmp_path / "alone", *pieces))
    assert alone.text_encoder.pieces != first.text_encoder.pieces
    more = (pieces[0], "text_encoder.vocabulary_size=38", source)
    assert len(build_trainer(config_of(others, tmp_path / "more", *more)).text_encoder) == 38
    saving.save(again)
    latest = (checkpoint.find_latest(tmp_path / f"{name}/checkpoints") for name in ("old", "new"))
    assert [row_of(path).train_data for path in latest] == ["an4", "an4, from old"]


def test_dropout_of_merges_is_changed_without_losing_the_labels(corpus, tmp_path):
    pieces = ("text_encoder=bpe", "text_encoder.vocabulary_size=36")
    first = build_trainer(config_of(corpus, tmp_path / "old", *pieces, "text_encoder.dropout=0.1"))
    saving.save(first)
    others = write_parts(tmp_path / "others", train=9, dev=2)
    source = f"init_from={checkpoint.find_latest(tmp_path / 'old/checkpoints')}"
    pieces += ("text_encoder.dropout=0",)
    tuned = build_trainer(config_of(others, tmp_path / "new", *pieces, source))
    assert all(torch.equal(t, copied(first.model)[name]) for name, t in copied(tuned.model).items())
    accepted = "trainer.accept_changes=[text_encoder.dropout]"
    again = build_trainer(config_of(corpus, tmp_path / "old", *pieces, accepted))
    for encoder in (tuned.text_encoder, again.text_encoder):
        assert encoder.pieces == first.text_encoder.pieces
        assert (encoder.options["dropout"], first.text_encoder.options["dropout"]) == (0.0, 0.1)


def test_a_stage_of_several_processes_stands_with_torchrun_in_those_after_it(corpus, tmp_path):
    train(config_of(corpus, tmp_path / "old"))
    path = tmp_path / "old/checkpoints/best"
    state = checkpoint.read_state(path)
    state["facts"]["trainer.accumulate"] = "2 batches a step"
    state["command"] = "python train.py a=b"
    (path / "state.json").write_text(json.dumps(state))
    later = build_trainer(config_of(corpus, tmp_path / "new", f"init_from={path}"))
    assert later.progress.earlier == ["torchrun --nproc-per-node=2 train.py a=b"]


def test_what_is_frozen_stays_as_it_was_and_has_no_state_in_the_optimiser(corpus, tmp_path):
    names = ["convolutions", "recurrent.0", "head.bias"]
    options = (f"trainer.freeze=[{','.join(names)}]", "optimizer.weight_decay=0.5")
    trainer = build_trainer(config_of(corpus, tmp_path, *options))
    before = copied(trainer.model)
    trainer.train()
    changed = {n for n, t in copied(trainer.model).items() if not torch.equal(t, before[n])}
    assert changed == {n for n in before if not n.startswith(tuple(names))}
    newest = checkpoint.find_latest(tmp_path / "checkpoints")
    states = {key.split("/")[0] for key in load_file(newest / "optimizer.safetensors")}
    in_optimizer = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    assert len(states) == in_optimizer == len(changed)
    assert json.loads((newest / "state.json").read_text())["finished"]


def test_a_run_cannot_go_on_with_other_parameters_frozen(corpus, tmp_path):
    train(config_of(corpus, tmp_path))
    other = ["trainer.freeze=[convolutions]", "trainer.accept_changes=[trainer.freeze]"]
    with pytest.raises(ValueError, match=r"trainer\.freeze: \[\] then"):
        train(config_of(corpus, tmp_path, other[0]))
    with pytest.raises(ValueError, match="trained with other parameters"):
        train(config_of(corpus, tmp_path, *other))


def stack():
    return nn.ModuleDict(
        {
            "layers": nn.ModuleList(
                nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()) for _ in range(11)
            )
        }
    )


def test_statistics_of_frozen_modules_stay_and_those_of_others_do_not():
    encoder = stack().train()
    freeze(encoder, ["layers.1"])
    for layer in encoder["layers"]:
        layer(torch.randn(5, 2))
    seen = [int(layer[1].num_batches_tracked) for layer in encoder["layers"]]
    assert seen == [1, 0, *[1] * 9]  # layers.10 is not below layers.1
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert not any(name.startswith("layers.1.") for name in trained)
    assert len(trained) == 40
    assert encoder["layers"][1][2].training  # dropout goes on


def test_freezing_what_is_not_there_or_everything_is_an_error():
    with pytest.raises(ValueError, match=r"\['layer', 'layers.11'\].*\['layers'\]"):
        freeze(stack(), ["layer", "layers.0", "layers.11"])
    with pytest.raises(ValueError, match="nothing to train"):
        freeze(stack(), ["layers"])
