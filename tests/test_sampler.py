"""Batches cover every utterance once, depend on (seed, epoch) alone, and hold little padding."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrlib.data import BucketBatchSampler
from asrlib.data.librispeech import librispeech_index

some_durations = st.lists(st.floats(0.1, 40), min_size=1, max_size=60).map(np.array)
options = {
    "durations": some_durations,
    "batch_seconds": st.floats(0.5, 200),
    "max_batch_size": st.integers(1, 20),
    "seed": st.integers(0, 2**63),
    "epoch": st.integers(0, 1000),
    "shuffle": st.booleans(),
}


def make(durations, batch_seconds=160.0, **others):
    return BucketBatchSampler(lambda epoch: durations, batch_seconds, **others)


@settings(deadline=None)
@given(**options)
def test_every_utterance_comes_exactly_once(
    durations, batch_seconds, max_batch_size, seed, epoch, shuffle
):
    sampler = make(
        durations, batch_seconds, max_batch_size=max_batch_size, seed=seed, shuffle=shuffle
    )
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(sampler) == len(batches)
    assert sorted(key for batch in batches for key in batch) == [
        (epoch, i) for i in range(len(durations))
    ]


@settings(deadline=None)
@given(**options)
def test_a_batch_is_within_its_limits_unless_single(
    durations, batch_seconds, max_batch_size, seed, epoch, shuffle
):
    sampler = make(
        durations, batch_seconds, max_batch_size=max_batch_size, seed=seed, shuffle=shuffle
    )
    for batch in sampler.batches(epoch):
        assert 1 <= len(batch) <= max_batch_size
        assert len(batch) == 1 or len(batch) * durations[batch].max() <= batch_seconds


@settings(deadline=None)
@given(some_durations, st.integers(0, 100), st.integers(0, 70))
def test_a_start_continues_the_epoch_exactly(durations, epoch, start):
    sampler = make(durations, batch_seconds=50)
    sampler.set_epoch(epoch)
    whole = list(sampler)
    start = min(start, len(whole))
    resumed = make(durations, batch_seconds=50)
    resumed.set_epoch(epoch, start)
    assert len(resumed) == len(whole) - start
    assert whole[:start] + list(resumed) == whole
    resumed.set_epoch(epoch)
    assert list(resumed) == whole


@settings(deadline=None)
@given(
    some_durations,
    st.integers(0, 100),
    st.integers(1, 7),  # processes before a stop
    st.integers(1, 4),  # and their batches in a step
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(0, 30),  # steps before it
)
def test_processes_share_an_epoch_without_overlap_or_loss_also_after_a_stop(
    durations, epoch, size, accumulate, size_after, accumulate_after, steps
):
    alone = make(durations, batch_seconds=50)
    alone.set_epoch(epoch)
    whole = list(alone)

    def share(rank, size, start):
        sampler = make(durations, batch_seconds=50, rank=rank, world_size=size)
        sampler.set_epoch(epoch, start)
        batches = list(sampler)
        assert len(sampler) == len(batches)
        return batches

    def step(shares, number, accumulate):
        return [b for s in shares for b in s[number * accumulate : (number + 1) * accumulate]]

    def keys(batches):
        return sorted(key for batch in batches for key in batch)

    seen, start = [], 0
    for world, per_step, most in ((size, accumulate, steps), (size_after, accumulate_after, 1000)):
        shares = [share(rank, world, start) for rank in range(world)]
        for number in range(most):
            end = min(start + world * per_step, len(whole))
            # each step has the batches that one process would have accumulated
            assert keys(step(shares, number, per_step)) == keys(whole[start:end])
            seen += step(shares, number, per_step)
            start = end
    assert keys(seen) == keys(whole) == [(epoch, i) for i in range(len(durations))]


def speech_like_durations(count=1519):
    """Seconds with the mode at about 15 and a long tail of short ones, as in train-clean-5."""
    return 1.5 + 15.5 * np.random.default_rng(5).beta(4.0, 1.5, count)


def test_batches_depend_on_seed_and_epoch_alone():
    durations = speech_like_durations(300)
    once, again, other = make(durations, seed=1), make(durations, seed=1), make(durations, seed=2)
    list(once)
    once.set_epoch(7, start=3)
    assert once.batches(5) == again.batches(5)
    assert once.batches(5) != once.batches(6)
    assert once.batches(5) != other.batches(5)


def test_a_change_of_speed_is_seen_by_the_sampler():
    sampler = BucketBatchSampler(lambda epoch: np.full(8, 1.0 + epoch), batch_seconds=8)
    assert [len(sampler.batches(epoch)) for epoch in (0, 1, 3)] == [1, 2, 4]


def padding_share(durations, batches):
    padded = sum(len(batch) * durations[batch].max() for batch in batches)
    return 1 - durations.sum() / padded


def pairs(batches):
    return {pair for batch in batches for pair in combinations(sorted(batch), 2)}


def assert_little_padding_and_much_mixing(durations, padding=0.025, repeated=0.4):
    sampler = make(durations, batch_seconds=160.0)
    first, second = sampler.batches(0), sampler.batches(1)
    assert padding_share(durations, first) <= padding
    assert len(pairs(first) & pairs(second)) <= repeated * len(pairs(first))


def test_speech_like_batches_hold_little_padding_and_mix_between_epochs():
    assert_little_padding_and_much_mixing(speech_like_durations())
    assert_little_padding_and_much_mixing(speech_like_durations(10 * 1519), 0.01, 0.1)


def test_utterances_of_one_duration_mix_as_well():
    assert_little_padding_and_much_mixing(np.full(1000, 10.0), padding=0, repeated=0.05)


def test_what_is_not_in_an_epoch_is_in_no_batch_and_changes_nothing_else():
    durations = speech_like_durations(300)
    absent = np.arange(300) % 3 == 0
    some = make(np.where(absent, 0.0, durations)).batches(4)
    alone = make(durations[~absent]).batches(4)
    names = np.flatnonzero(~absent)
    assert some == [[int(names[i]) for i in batch] for batch in alone]


def test_train_clean_5_holds_little_padding_and_mixes_between_epochs(speech_dir):
    utterances = librispeech_index(speech_dir / "LibriSpeech", ["train-clean-5"]).utterances
    assert_little_padding_and_much_mixing(np.array([u.duration for u in utterances]))


def test_evaluation_starts_with_the_longest():
    durations = speech_like_durations(200)
    sampler = make(durations, shuffle=False)
    order = [i for batch in sampler.batches(0) for i in batch]
    assert order == np.argsort(-durations, kind="stable").tolist()
    assert sampler.batches(0) == sampler.batches(1)


@pytest.mark.parametrize("limits", [{"batch_seconds": 0}, {"max_batch_size": 0}])
def test_impossible_limits_are_an_error(limits):
    with pytest.raises(ValueError, match="must be positive"):
        make(np.ones(3), **limits)
