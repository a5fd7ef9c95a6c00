"""Batches that cannot be learned from are left out without a trace, kept, counted, and not endured."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from asrlib import checkpoint
from asrlib.configs import compose
from asrlib.training import build_trainer, train, watch
from asrlib.training.step import take
from asrlib.training.trial import try_worst_batches
from tests.corpus import tiny_overrides, write_parts


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("corpus"), train=8, dev=8)


def config(corpus, run_dir, *others):
    tiny = [o for o in tiny_overrides(corpus, run_dir) if "size" not in o]
    return compose("train", *tiny, "trainer.log_samples=0", *others)


SMALL = ["model=conformer", "model.size=xxs"]
WITH_STATISTICS = ["model=quartznet", "model.size=xs"]


def batches_of(trainer):
    trainer._set_training_mode()
    return list(trainer.train_loader)


def traces(trainer):
    """All that a step could have changed, by name."""
    found = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    for i, state in trainer.optimizer.state_dict()["state"].items():
        found |= {f"{i}.{name}": value.clone() for name, value in state.items()}
    if trainer.average is not None:
        found |= {f"average.{name}": t.clone() for name, t in trainer.average.tensors.items()}
    return found


def assert_no_trace(trainer, before):
    after = traces(trainer)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def poisoned(batch):
    return batch | {"audio": torch.full_like(batch["audio"], math.nan)}


def out_of_memory(*_):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("model", [SMALL, WITH_STATISTICS])
@pytest.mark.parametrize("kind", [watch.NOT_FINITE, watch.MEMORY])
def test_a_step_that_cannot_be_taken_leaves_no_trace(corpus, tmp_path, kind, model, capsys):
    trainer = build_trainer(config(corpus, tmp_path, *model, "trainer.average=0.9"))
    batches = batches_of(trainer)
    assert take(trainer, batches[:1]) is not None
    before = traces(trainer)
    if kind == watch.NOT_FINITE:
        assert take(trainer, [poisoned(batches[1])]) is None
    else:  # late in the backward pass, when most gradients are there
        hook = next(trainer.model.encoder.parameters()).register_hook(out_of_memory)
        assert take(trainer, batches[1:2]) is None
        hook.remove()
    assert_no_trace(trainer, before)
    assert trainer.progress.bad_steps == {kind: 1}
    assert (trainer.progress.step, trainer.progress.bad_in_a_row) == (1, 1)
    assert f"left out a step after step 1: {kind}" in capsys.readouterr().out
    assert take(trainer, batches[1:2]) is not None
    assert (trainer.progress.step, trainer.progress.bad_in_a_row) == (2, 0)


def test_the_batch_that_did_it_is_kept_with_its_names(corpus, tmp_path):
    trainer = build_trainer(config(corpus, tmp_path, *SMALL))
    batch = poisoned(batches_of(trainer)[0])
    take(trainer, [batch])
    (folder,) = (tmp_path / "bad_batches").iterdir()
    about = json.loads((folder / "batch.json").read_text())
    assert about["utterance_id"] == batch["utterance_id"]
    assert about["text"] == batch["text"]
    assert "loss nan" in about["what"]
    tensors = load_file(folder / "batch.safetensors")
    for name in ("audio", "audio_length", "text_encoded", "text_encoded_length"):
        assert torch.equal(tensors[name].nan_to_num(), batch[name].nan_to_num()), name


def test_a_gradient_that_is_not_finite_is_noted_though_the_loss_is(corpus, tmp_path):
    trainer = build_trainer(config(corpus, tmp_path, *SMALL))
    before = traces(trainer)
    weight = trainer.model.encoder.head.weight
    weight.register_hook(lambda gradient: gradient * math.inf)
    assert take(trainer, batches_of(trainer)[:1]) is None
    assert trainer.progress.bad_steps == {watch.NOT_FINITE: 1}
    assert_no_trace(trainer, before)


@pytest.mark.parametrize(
    ("kind", "error", "remedy"),
    [
        (watch.NOT_FINITE, FloatingPointError, r"3 steps in a row.*optimizer\.lr"),
        (watch.MEMORY, MemoryError, r"3 steps in a row.*trainer\.batch_seconds \(now 4\)"),
    ],
)
def test_too_many_in_a_row_stop_the_training_with_a_remedy(corpus, tmp_path, kind, error, remedy):
    trainer = build_trainer(config(corpus, tmp_path, *SMALL, "trainer.max_bad_steps=3"))
    encoder = trainer.model.encoder
    if kind == watch.MEMORY:
        encoder.register_forward_pre_hook(out_of_memory)
    else:
        with torch.no_grad():
            encoder.head.bias.fill_(math.nan)
    with pytest.raises(error, match=remedy):
        trainer.train()
    assert trainer.progress.bad_steps == {kind: 3}
    assert trainer.progress.step == 0


def test_not_in_a_row_they_are_only_counted(corpus, tmp_path):
    options = [*SMALL, "trainer.max_bad_steps=2", "trainer.epochs=3", "trainer.batch_seconds=2"]
    trainer = build_trainer(config(corpus, tmp_path, *options))
    calls = []

    def every_third(*arguments):
        calls.append(1)
        if len(calls) % 3 == 0 and trainer.model.training:
            out_of_memory()

    trainer.model.encoder.register_forward_pre_hook(every_third)
    assert trainer.train().finished
    count = trainer.progress.bad_steps[watch.MEMORY]
    assert count > 2
    newest = checkpoint.find_latest(tmp_path / "checkpoints")
    assert checkpoint.read_state(newest)["bad_steps"] == {watch.MEMORY: count}


def test_a_batch_without_memory_is_described_by_what_its_memory_depends_on(
    corpus, tmp_path, capsys
):
    trainer = build_trainer(config(corpus, tmp_path, *SMALL))
    batch = next(b for b in batches_of(trainer) if len(b["audio"]) > 1)
    trainer.model.encoder.register_forward_pre_hook(out_of_memory)
    take(trainer, [batch])
    rows, samples = batch["audio"].shape
    labels = batch["text_encoded"].shape[1]
    seconds = samples / 16_000
    size = f"{rows} utterances × {seconds:.1f} s = {rows * seconds:.0f} s of padded audio"
    assert f"{size}, {labels} labels" in capsys.readouterr().out


@pytest.mark.parametrize(
    "message", ["cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "can't allocate memory"]
)
def test_other_names_for_too_little_memory_are_known(message):
    assert watch.is_out_of_memory(RuntimeError(f"{message}: 12 bytes"))
    assert not watch.is_out_of_memory(RuntimeError("shapes do not match"))


def test_an_error_in_the_program_is_not_mistaken_for_a_bad_batch(corpus, tmp_path):
    trainer = build_trainer(config(corpus, tmp_path, *SMALL))

    def broken(*_):
        raise RuntimeError("shapes do not match")

    trainer.model.encoder.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trainer.train()


# --- the worst batches


def test_the_largest_and_the_longest_batch_are_tried(corpus, tmp_path):
    trainer = build_trainer(config(corpus, tmp_path, *SMALL, "augmentations=none"))
    seen = []
    trainer.model.features.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    batches = [tuple(batch["audio"].shape) for batch in batches_of(trainer)]
    trainer._set_training_mode()
    try_worst_batches(trainer)
    assert max(seen, key=lambda shape: shape[1])[1] == max(samples for _, samples in batches)
    assert max(rows * samples for rows, samples in seen) == max(b * s for b, s in batches)
    assert len(seen) <= 2


def test_trying_the_worst_batches_changes_nothing(corpus, tmp_path):
    for name in ("true", "false"):
        options = [*WITH_STATISTICS, "trainer.precision=fp16", "trainer.epochs=1"]
        train(config(corpus, tmp_path / name, *options, f"trainer.try_worst={name}"))
    tried, plain = (
        load_file(checkpoint.find_latest(tmp_path / name / "checkpoints") / "model.safetensors")
        for name in ("true", "false")
    )
    assert all(torch.equal(tried[name], plain[name]) for name in plain)


def test_worst_batches_that_do_not_fit_are_an_error_before_the_first_step(corpus, tmp_path):
    trainer = build_trainer(config(corpus, tmp_path, *SMALL, "trainer.try_worst=true"))
    trainer.model.encoder.register_forward_pre_hook(out_of_memory)
    with pytest.raises(
        MemoryError, match=r"before training.*\d utterances × .*trainer\.accumulate"
    ):
        trainer.train()
    assert trainer.progress.bad_steps == {}
    assert not (tmp_path / "logs/metrics.jsonl").exists()
