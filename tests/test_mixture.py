"""A mixture is its parts, each utterance as often as its weight says, and nothing else about them changes."""

from collections import Counter

import numpy as np
import pytest
from omegaconf import OmegaConf

from asrlib.augmentations import Gain, Speed, WaveformAugmentations
from asrlib.build import build
from asrlib.configs import compose
from asrlib.data import CustomDirDataset, MixtureDataset
from asrlib.data.dataset import SkippedItem
from asrlib.data.loader import make_loader
from asrlib.training import build_trainer, train
from tests.corpus import tiny_overrides
from tests.survival import assert_same_run


def section(folder, **options):
    return {"_target_": "asrlib.data.CustomDirDataset", "data_dir": str(folder), **options}


def mixture(corpus, seed=3, training=True, augmentations=None, limit=None, dev=None, **train):
    parts = {"a": section(corpus / "train", **train), "b": section(corpus / "dev", **(dev or {}))}
    return MixtureDataset(
        parts, limit=limit, training=training, augmentations=augmentations, seed=seed
    )


def ids(dataset, epoch):
    """Of all utterances of an epoch, in the sampler's order."""
    loader = make_loader(dataset, batch_seconds=3, seed=5, shuffle=True)
    batches = loader.batch_sampler.batches(epoch)
    return [dataset.utterances[i].id for batch in batches for i in batch]


def test_with_weights_of_one_it_is_one_dataset_after_the_other(corpus):
    whole = mixture(corpus)
    parts = {"a": CustomDirDataset(corpus / "train"), "b": CustomDirDataset(corpus / "dev")}
    expected = [(name, part, i) for name, part in parts.items() for i in range(len(part))]
    assert len(whole) == len(expected) == 12
    for i, (name, part, j) in enumerate(expected):
        found, wanted = whole[0, i], part[0, j]
        assert found.utterance.id == f"{name}/{wanted.utterance.id}"
        assert found.utterance.text == wanted.utterance.text
        np.testing.assert_array_equal(found.audio, wanted.audio)
    for epoch in range(3):
        durations = np.concatenate([part.durations(epoch) for part in parts.values()])
        np.testing.assert_array_equal(whole.durations(epoch), durations)
        assert sorted(ids(whole, epoch)) == sorted(u.id for u in whole.utterances)


def test_speakers_of_different_parts_are_different(corpus):
    pattern = {"speaker_pattern": "-(.+)-"}
    speakers = {u.speaker for u in mixture(corpus, dev=pattern, **pattern).utterances}
    assert speakers == {"a/s0", "a/s1", "b/s0", "b/s1"}
    assert {u.speaker for u in mixture(corpus).utterances} == {None}


def test_a_weight_of_two_gives_each_utterance_twice_with_draws_of_its_own(corpus):
    augmentations = WaveformAugmentations({"speed": Speed(), "gain": Gain()}, seed=3)
    once = mixture(corpus, augmentations=augmentations)
    twice = mixture(corpus, augmentations=augmentations, weight=2)
    assert Counter(ids(twice, 4)) == Counter(u.id for u in twice.utterances)
    index = {u.id: i for i, u in enumerate(twice.utterances)}
    different = 0
    for i, utterance in enumerate(once.utterances):
        # the first is what it is without a weight
        original = twice[4, index[utterance.id]].audio
        np.testing.assert_array_equal(original, once[4, i].audio)
        if utterance.id.startswith("a/"):
            copy = twice[4, index[f"{utterance.id}#2"]]
            assert copy.utterance.text == utterance.text
            different += not np.array_equal(copy.audio, original)
    assert different == 6


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.5])
def test_a_fraction_is_drawn_anew_in_each_epoch(corpus, weight):
    dataset, again = mixture(corpus, weight=weight), mixture(corpus, weight=weight)
    count, epochs, seen = Counter(), 100, set()
    for epoch in range(epochs):
        found = ids(dataset, epoch)
        assert found == ids(again, epoch)
        assert len(set(found)) == len(found)
        assert sum(id.startswith("b/") for id in found) == 6
        seen.add(frozenset(found))
        count.update(id.split("#")[0] for id in found)
    assert len(seen) > 20
    shares = np.array([n / epochs for id, n in count.items() if id.startswith("a/")])
    assert len(shares) == 6
    # a share has a standard deviation of at most 0.5 / sqrt(100)
    np.testing.assert_allclose(shares, weight, atol=0.2)
    assert ids(mixture(corpus, seed=4, weight=weight), 0) != ids(dataset, 0)


def test_what_is_drawn_of_a_part_does_not_depend_on_the_others(corpus):
    alone = MixtureDataset({"a": section(corpus / "train", weight=0.5)}, training=True, seed=3)
    for epoch in range(5):
        beside = [id for id in ids(mixture(corpus, weight=0.5), epoch) if id.startswith("a/")]
        assert sorted(ids(alone, epoch)) == sorted(beside)


def test_processes_share_an_epoch_and_a_start_goes_on_in_it(corpus):
    dataset = mixture(corpus, weight=0.5, dev={"weight": 2})

    def batches(start=0, **options):
        loader = make_loader(dataset, 2, seed=5, shuffle=True, **options)
        loader.batch_sampler.set_epoch(1, start)
        return [batch["utterance_id"] for batch in loader]

    whole = batches()
    assert len(whole) > 5
    assert batches(start=2) == whole[2:]
    shares = [batches(rank=rank, world_size=2) for rank in range(2)]
    assert [batch for share in shares for batch in share] == whole[::2] + whole[1::2]
    assert batches(num_workers=1) == whole


def test_the_fingerprint_tells_weights_and_texts_but_not_where_they_are(corpus, tmp_path):
    (tmp_path / "elsewhere").symlink_to(corpus)
    assert mixture(corpus).fingerprint() == mixture(tmp_path / "elsewhere").fingerprint()
    weights = (1, 0.5, 0.6, 2)
    assert len({mixture(corpus, weight=weight).fingerprint() for weight in weights}) == 4
    assert mixture(corpus).fingerprint() != mixture(corpus, limit=11).fingerprint()


def test_a_limit_is_of_the_whole(corpus):
    dataset = mixture(corpus, limit=8, dev={"weight": 0.5})
    assert [u.id[0] for u in dataset.utterances] == [*"aaaaaabb"]
    assert set(map(len, (ids(dataset, epoch) for epoch in range(20)))) == {6, 7, 8}


def test_each_part_leaves_out_by_its_own_options_and_says_so(corpus):
    shortest = min(u.duration for u in CustomDirDataset(corpus / "train").utterances)
    dataset = mixture(corpus, max_duration=shortest)
    assert [u.id[0] for u in dataset.utterances] == [*"abbbbbb"]
    assert dataset.skipped_by_reason() == {f"a: not 0.1–{shortest} s long": 5}
    assert len(dataset.skipped) == 5
    assert all(name.startswith("a/train") for name in dataset.skipped)


def test_what_cannot_be_read_is_named_with_its_part(corpus, tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "x.wav").write_text("no audio")
    (tmp_path / "audio" / "y.flac").symlink_to(next((corpus / "dev/audio").iterdir()))
    parts = {"a": section(corpus / "train"), "c": section(tmp_path)}
    dataset = MixtureDataset(parts)  # as for dev
    assert dataset.skipped_by_reason() == {"c: not readable as audio": 1}
    (tmp_path / "audio" / "y.flac").unlink()
    item = dataset[0, 6]
    assert isinstance(item, SkippedItem)
    assert item.utterance.id == "c/y"


@pytest.mark.parametrize("weight", [2, 0.5])
def test_dev_and_test_have_no_weights(corpus, weight):
    with pytest.raises(ValueError, match=r"part a.*dev and test count each utterance once"):
        mixture(corpus, training=False, weight=weight)
    assert len(mixture(corpus, training=False, weight=1)) == 12


def test_parts_that_make_no_sense_are_refused_by_name(corpus):
    for weight in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"part a: weight={weight}"):
            mixture(corpus, weight=weight)
    nested = {"_target_": "asrlib.data.MixtureDataset", "parts": {"a": section(corpus / "dev")}}
    with pytest.raises(ValueError, match="part m is itself a mixture"):
        MixtureDataset({"m": nested | {"_recursive_": False}})
    with pytest.raises(ValueError, match="without parts"):
        MixtureDataset({"a": None})
    with pytest.raises(ValueError, match="part a: augmentations are those of the whole"):
        MixtureDataset({"a": section(corpus / "dev", augmentations={"noise": None})})
    with pytest.raises(ValueError, match=r"part a: no usable utterance.*not 50–30.0 s long': 6"):
        mixture(corpus, min_duration=50)
    with pytest.raises(ValueError, match=r"belongs to one part of a mixture: parts\.NAME\.only"):
        MixtureDataset({"a": section(corpus / "dev")}, only="ids.txt")


def test_the_configuration_builds_a_mixture_with_what_the_command_line_changes(
    corpus, librispeech_dir
):
    config = compose(
        "train",
        "datasets=mixture",
        f"datasets.root={librispeech_dir}",
        "datasets.train.parts.librispeech={parts: [train], weight: 2}",
        "datasets.train.parts.common_voice=null",
        f"+datasets.train.parts.mine={{_target_: asrlib.data.CustomDirDataset, data_dir: '{corpus}/dev'}}",
    ).datasets.train
    OmegaConf.resolve(config)
    dataset = build(config, training=True, seed=0)
    parts = Counter(u.id.split("/")[0] for u in dataset.utterances)
    assert parts == {"librispeech": 12, "mine": 6}


def test_without_a_folder_for_a_part_the_error_names_the_key(librispeech_dir):
    config = compose("train", "datasets=mixture", f"datasets.root={librispeech_dir}")
    config.datasets.train.parts.librispeech.parts = ["train"]
    with pytest.raises(Exception, match=r"common_voice\.data_dir|common_voice: .*data_dir"):
        build(config.datasets.train, training=True, seed=0)


def mixed(corpus, run_dir):
    """A training on a mixture with fractions and copies."""
    config = compose("train", *tiny_overrides(corpus, run_dir), "trainer.log_samples=0")
    config.datasets.train = {
        "_target_": "asrlib.data.MixtureDataset",
        "_recursive_": False,
        "parts": {
            "a": section(corpus / "train", weight=1.5),
            "b": section(corpus / "test", weight=0.5),
        },
    }
    return config


def test_a_training_stopped_within_an_epoch_goes_on_as_if_it_had_not_been(corpus, tmp_path):
    for run_dir in ("whole", "stopped"):
        config = mixed(corpus, tmp_path / run_dir)
        trainer = build_trainer(config)
        if run_dir == "stopped":
            steps = iter([None] * 5)
            trainer.stopping.reason = lambda steps=steps: next(steps, "enough")
            assert not trainer.train().finished
            assert trainer.progress.batches_done > 0
            assert train(config).finished
        else:
            assert trainer.train().finished
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
