"""Every augmentation is a pure function of its key, and does as much as it is told to."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrlib.augmentations import (
    ColoredNoise,
    Gain,
    NoiseFiles,
    SpecAugment,
    SpectrogramAugmentations,
    Speed,
    WaveformAugmentations,
)
from asrlib.randomness import generator
from tests.signals import hiss, pitch, tone

AUDIO = hiss(1.0)


def rng(*key):
    return generator("test", *key)


def every_waveform_augmentation(noise_dir, **options):
    return {
        "speed": Speed(factors=(0.9, 1.0, 1.1), **options),
        "gain": Gain(**options),
        "colored": ColoredNoise(**options),
        "files": NoiseFiles(str(noise_dir), **options),
    }


@pytest.mark.parametrize("name", ["speed", "gain", "colored", "files"])
def test_a_waveform_augmentation_is_a_pure_function_of_its_key(noise_dir, name):
    augmentation = every_waveform_augmentation(noise_dir, p=0.7)[name]
    audio = AUDIO.copy()
    keys = [(epoch, id) for epoch in range(6) for id in ("a", "b")]
    made = {}
    for order in (keys, keys[::-1]):
        chain = WaveformAugmentations({name: augmentation}, seed=1)
        for key in order:
            out = chain(audio, *key)
            assert out.dtype == np.float32
            np.testing.assert_array_equal(out, made.setdefault(key, out))
    np.testing.assert_array_equal(audio, AUDIO)  # the input is left as it was
    assert len({out.tobytes() for out in made.values()}) > 1
    other = WaveformAugmentations({name: augmentation}, seed=2)
    assert any(not np.array_equal(other(audio, *key), out) for key, out in made.items())


def test_one_more_augmentation_does_not_change_the_draws_of_the_first():
    alone = WaveformAugmentations({"gain": Gain(-20, 20)}, seed=1)
    beside = WaveformAugmentations({"other": Gain(-6, -6), "gain": Gain(-20, 20)}, seed=1)
    halved, quiet = np.float32(10 ** (-6 / 20)), 0.01 * AUDIO  # too quiet to be clipped
    for epoch in range(5):
        out = beside(quiet, epoch, "id")
        np.testing.assert_allclose(out, halved * alone(quiet, epoch, "id"), rtol=1e-5)


def test_with_probability_zero_nothing_changes(noise_dir):
    chain = WaveformAugmentations(every_waveform_augmentation(noise_dir, p=0.0), seed=0)
    for epoch in range(5):
        np.testing.assert_array_equal(chain(AUDIO, epoch, "id"), AUDIO)
        assert chain.duration_factor(epoch, "id") == 1.0


def test_an_augmentation_is_applied_as_often_as_its_probability_says():
    chain = WaveformAugmentations({"gain": Gain(-6, -6, p=0.3)}, seed=0)
    changed = [not np.array_equal(chain(AUDIO[:10], e, "id"), AUDIO[:10]) for e in range(1000)]
    assert 250 <= sum(changed) <= 350


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_a_probability_outside_0_to_1_is_an_error(p):
    with pytest.raises(ValueError, match="no probability"):
        Gain(p=p)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30_000), st.sampled_from([0.5, 0.9, 0.95, 1.0, 1.05, 1.1, 2.0]))
def test_speed_changes_the_duration_by_the_factor_it_foretells(samples, factor):
    chain = WaveformAugmentations({"a": Speed((factor,)), "b": Speed((0.9, 1.1), p=0.5)}, seed=0)
    audio = np.ones(samples, dtype=np.float32)
    expected = samples * chain.duration_factor(3, "id")
    assert abs(len(chain(audio, 3, "id")) - expected) <= 2  # half a sample each time, times 1 / 0.5


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1])
def test_speed_moves_a_tone(factor):
    audio = tone(1000, 1.0).astype(np.float32)
    out = Speed((factor,))(audio, rng())
    assert abs(len(out) - 16_000 / factor) <= 1
    assert abs(pitch(out) - 1000 * factor) <= 2


def test_speed_draws_all_its_factors():
    chain = WaveformAugmentations({"speed": Speed((0.9, 1.0, 1.1))}, seed=0)
    drawn = [chain.duration_factor(epoch, "id") for epoch in range(300)]
    counts = [sum(abs(d - 1 / factor) < 1e-9 for d in drawn) for factor in (0.9, 1.0, 1.1)]
    assert sum(counts) == 300
    assert min(counts) > 70


@pytest.mark.parametrize("factors", [(), (0.0, 1.0), (-1.0,)])
def test_an_impossible_speed_is_an_error(factors):
    with pytest.raises(ValueError, match="must be positive"):
        Speed(factors)


def test_gain_stays_within_its_decibels_and_clips_at_full_scale():
    gain = Gain(-12, 6)
    decibels = [
        20 * np.log10(np.abs(gain(0.1 * AUDIO, rng(i))).max() / np.abs(0.1 * AUDIO).max())
        for i in range(200)
    ]
    assert -12.01 <= min(decibels) < -11
    assert 5 < max(decibels) <= 6.01
    loud = Gain(40, 40)(AUDIO, rng())
    assert loud.dtype == np.float32
    assert (loud.min(), loud.max()) == (-1.0, 1.0)


def measured_snr(audio, mixed):
    noise = mixed.astype(np.float64) - audio
    return 10 * np.log10(np.mean(audio.astype(np.float64) ** 2) / np.mean(noise**2))


@pytest.mark.parametrize("snr", [-5, 0, 15, 40])
def test_noise_has_the_ratio_asked_for(noise_dir, snr):
    audio = tone(300, 0.7).astype(np.float32)
    for noise in (ColoredNoise(snr, snr, p=1), NoiseFiles(str(noise_dir), snr, snr, p=1)):
        for i in range(5):
            mixed = noise(audio, rng(i))
            assert mixed.shape == audio.shape
            assert mixed.dtype == np.float32
            assert abs(measured_snr(audio, mixed) - snr) < 0.01


def test_ratios_fill_the_range_asked_for(noise_dir):
    for noise in (ColoredNoise(5, 15, p=1), NoiseFiles(str(noise_dir), 5, 15, p=1)):
        ratios = [measured_snr(AUDIO, noise(AUDIO, rng(i))) for i in range(60)]
        assert 4.99 < min(ratios) < 6.5
        assert 13.5 < max(ratios) < 15.01


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_colored_noise_falls_with_its_exponent(exponent):
    audio = hiss(4.0)
    mixed = ColoredNoise(0, 0, (exponent, exponent), p=1)(audio, rng())
    power = np.abs(np.fft.rfft(mixed.astype(np.float64) - audio)) ** 2
    edges = 2 ** np.arange(5, 15)  # octaves of bins
    octaves = [power[low:high].mean() for low, high in pairwise(edges)]
    slope = np.polyfit(np.log(edges[:-1]), np.log(octaves), 1)[0]
    assert abs(slope + exponent) < 0.1


def test_silence_stays_silence(noise_dir):
    silence = np.zeros(1000, dtype=np.float32)
    chain = WaveformAugmentations(every_waveform_augmentation(noise_dir, p=1.0), seed=0)
    out = chain(silence, 0, "id")
    assert np.isfinite(out).all()
    assert not out.any()


def test_a_single_sample_is_enough(noise_dir):
    chain = WaveformAugmentations(every_waveform_augmentation(noise_dir, p=1.0), seed=0)
    out = chain(np.full(1, 0.5, dtype=np.float32), 0, "id")
    assert out.shape == (1,)
    assert np.isfinite(out).all()


def test_a_noise_folder_without_audio_is_an_error(tmp_path):
    (tmp_path / "readme.txt").touch()
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        NoiseFiles(str(tmp_path))


def masked(lengths, epoch=0, ids=None, seed=0, **options):
    ones = torch.ones(len(lengths), 80, max(lengths))
    ids = ids or [f"u{i}" for i in range(len(lengths))]
    chain = SpectrogramAugmentations({"mask": SpecAugment(**options)}, seed=seed)
    return chain(ones, torch.tensor(lengths), epoch, ids)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=4), st.integers(0, 1000))
def test_masks_are_no_wider_than_allowed(lengths, epoch):
    out = masked(lengths, epoch)
    for row, length in zip(out, lengths, strict=True):
        bands, stretches = (row == 0).all(dim=1), (row == 0).all(dim=0)
        assert bands.sum() <= 2 * 27
        assert stretches[:length].sum() <= 2 * min(50, int(0.2 * length))
        assert not stretches[length:].any()  # beyond the length there is nothing to hide
        assert torch.equal(row == 0, bands[:, None] | stretches)


def test_masks_take_the_share_that_their_widths_predict():
    def share(**options):
        return np.mean([(masked([300], e, **options) == 0).float().mean() for e in range(300)])

    # two masks of mean width w / 2 each; overlaps make the union a little smaller
    bands, stretches = share(time_masks=0), share(frequency_masks=0)
    assert 0.25 < bands < 27 / 80
    assert 0.12 < stretches < 50 / 300
    assert share() == pytest.approx(1 - (1 - bands) * (1 - stretches), abs=0.02)


def test_what_is_masked_does_not_depend_on_the_batch():
    spectrogram = torch.randn(3, 80, 400)
    chain = SpectrogramAugmentations({"mask": SpecAugment()}, seed=3)
    together = chain(spectrogram, torch.tensor([400, 250, 100]), 5, ["a", "b", "c"])
    swapped = chain(spectrogram[[2, 0]], torch.tensor([100, 400]), 5, ["c", "a"])
    alone = chain(spectrogram[1:2, :, :250], torch.tensor([250]), 5, ["b"])
    assert torch.equal(together[1:2, :, :250], alone)
    assert torch.equal(together[[2, 0]], swapped)


def test_what_is_masked_changes_with_seed_epoch_and_utterance():
    base = masked([300], 0, ["a"], seed=0)
    for other in (
        masked([300], 1, ["a"], seed=0),
        masked([300], 0, ["b"], seed=0),
        masked([300], 0, ["a"], seed=1),
    ):
        assert not torch.equal(base, other)


def test_each_view_has_draws_of_its_own_and_the_first_those_of_a_single_one():
    spectrogram, lengths, ids = torch.randn(2, 80, 300), torch.tensor([300, 200]), ["a", "b"]
    chain = SpectrogramAugmentations({"mask": SpecAugment()}, seed=3)
    first, second = (chain(spectrogram, lengths, 5, ids, view=view) for view in (0, 1))
    rngs = [generator(3, 5, id, "mask") for id in ids]
    assert torch.equal(first, SpecAugment()(spectrogram, lengths, rngs))
    for row in range(2):
        assert not torch.equal(first[row], second[row])
    assert torch.equal(second, chain(spectrogram, lengths, 5, ids, view=1))


def test_masking_leaves_its_input_and_the_other_values_as_they_were():
    spectrogram = torch.randn(1, 80, 300)
    before = spectrogram.clone()
    chain = SpectrogramAugmentations({"mask": SpecAugment()}, seed=0)
    out = chain(spectrogram, torch.tensor([300]), 0, ["a"])
    assert torch.equal(spectrogram, before)
    assert torch.equal(out[out != 0], spectrogram[out != 0])
    assert (out == 0).any()


def test_before_its_first_epoch_nothing_is_augmented():
    waveform, spectrogram = {"speed": Speed((0.5,))}, {"mask": SpecAugment(time_fraction=1.0)}
    late = WaveformAugmentations(waveform, seed=0, from_epoch=2)
    assert [len(late(AUDIO, epoch, "id")) // len(AUDIO) for epoch in range(4)] == [1, 1, 2, 2]
    assert [late.duration_factor(epoch, "id") for epoch in range(4)] == [1, 1, 2, 2]
    masks, x = SpectrogramAugmentations(spectrogram, seed=0, from_epoch=2), torch.ones(1, 80, 100)
    changed = [
        not torch.equal(masks(x, torch.tensor([100]), epoch, ["id"]), x) for epoch in range(4)
    ]
    assert changed == [False, False, True, True]
