"""Every augmentation is a pure function of its key, and does as much as it is told to."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrlib.augmentations import (
    BandPass,
    Clipping,
    Codec,
    ColoredNoise,
    Gain,
    NoiseFiles,
    RoomFiles,
    Shift,
    SpecAugment,
    SpectrogramAugmentations,
    Speed,
    SyntheticRoom,
    TimeWarp,
    WaveformAugmentations,
)
from asrlib.data import AudioError
from asrlib.randomness import generator
from tests.signals import hiss, pitch, tone

AUDIO = hiss(1.0)


def rng(*key):
    return generator("test", *key)


def every_waveform_augmentation(noise_dir, **options):
    return {
        "speed": Speed(factors=(0.9, 1.0, 1.1), **options),
        "shift": Shift(**options),
        "gain": Gain(**options),
        "room": SyntheticRoom(**options),
        "room_files": RoomFiles(str(noise_dir), **options),
        "colored": ColoredNoise(**options),
        "files": NoiseFiles(str(noise_dir), **options),
        "clipping": Clipping(**options),
        "band_pass": BandPass(**options),
        "codec": Codec(**options),
    }


NAMES = [
    *("speed", "shift", "gain", "room", "room_files", "colored", "files"),
    *("clipping", "band_pass", "codec"),
]


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", NAMES)
def test_others_before_and_after_do_not_change_the_draws_of_an_augmentation(noise_dir, name):
    def draws_much_and_does_nothing(audio, rng):
        rng.random(100)
        return audio

    augmentation = every_waveform_augmentation(noise_dir, p=0.7)[name]
    others = {"before": draws_much_and_does_nothing, name: augmentation}
    alone = WaveformAugmentations({name: augmentation}, seed=1)
    beside = WaveformAugmentations({**others, "after": draws_much_and_does_nothing}, seed=1)
    for epoch in range(4):
        np.testing.assert_array_equal(alone(AUDIO, epoch, "id"), beside(AUDIO, epoch, "id"))


def test_one_more_augmentation_does_not_change_what_the_first_does():
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


def test_the_length_is_kept_by_all_but_speed(noise_dir):
    augmentations = every_waveform_augmentation(noise_dir, p=1.0)
    del augmentations["speed"]
    chain = WaveformAugmentations(augmentations, seed=0)
    for samples in (2, 159, 1601, 16_000):
        for epoch in range(6):  # all codecs
            assert chain(AUDIO[:samples], epoch, "id").shape == (samples,)
            assert chain.duration_factor(epoch, "id") == 1.0


def test_what_is_fixed_is_the_same_in_every_epoch_and_other_for_another_utterance(noise_dir):
    augmentations = {"files": NoiseFiles(str(noise_dir), p=1.0), "speed": Speed((0.5, 2.0))}
    chain = WaveformAugmentations(augmentations, seed=3, fixed=True)
    drawn = WaveformAugmentations(augmentations, seed=3)(AUDIO, 0, "a")
    for epoch in (0, 1, 7):
        np.testing.assert_array_equal(chain(AUDIO, epoch, "a"), drawn)
        assert chain.duration_factor(epoch, "a") == chain.duration_factor(0, "a")
    assert not np.array_equal(chain(AUDIO, 0, "b"), drawn)


def test_recordings_are_those_that_are_asked_for_and_told_apart(noise_dir):
    (noise_dir / "street").mkdir()
    soundfile.write(noise_dir / "street" / "car.wav", hiss(0.2, seed=3), 16_000)
    every, car, others = (
        NoiseFiles(str(noise_dir), files=files)
        for files in (["**/*"], ["street/*"], ["long.wav", "*.flac"])
    )
    names = [[Path(p).name for p in noise.recordings.paths] for noise in (every, car, others)]
    assert names == [["long.wav", "short.flac", "car.wav"], ["car.wav"], ["long.wav", "short.flac"]]
    assert len({repr(every), repr(car), repr(others)}) == 3
    moved = shutil.copytree(noise_dir, noise_dir.parent / "moved")
    assert repr(NoiseFiles(str(moved))) == repr(every), "the same files in another place"
    (moved / "street" / "car.wav").unlink()
    assert repr(NoiseFiles(str(moved))) != repr(every)
    with pytest.raises(FileNotFoundError, match=r"rain\.wav"):
        NoiseFiles(str(noise_dir), files=["long.wav", "rain.wav"])


def test_hidden_files_are_no_recordings_and_a_broken_one_is_named_at_once(noise_dir):
    (noise_dir / "._long.wav").write_text("what macOS leaves")
    assert len(NoiseFiles(str(noise_dir)).recordings.paths) == 2
    (noise_dir / "broken.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"broken\.wav"):
        NoiseFiles(str(noise_dir))


def test_one_that_breaks_off_is_named_once_and_others_are_drawn(noise_dir, capsys):
    broken = noise_dir / "nan.wav"
    soundfile.write(broken, np.full(8_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    both = NoiseFiles(str(noise_dir), files=["long.wav", "nan.wav"]).recordings
    drawn = [both.draw(generator(0, i)) for i in range(20)]
    assert {len(noise) for noise in drawn} == {48_000}
    assert capsys.readouterr().err.count("nan.wav") == 1
    with pytest.raises(AudioError, match=r"nan\.wav"):
        NoiseFiles(str(noise_dir), files=["nan.wav"]).recordings.draw(generator(0))
    with pytest.raises(ValueError, match="a list of patterns"):
        NoiseFiles(str(noise_dir), files="*.wav")


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_a_probability_outside_0_to_1_is_an_error(p):
    for augmentation in (Gain, TimeWarp):
        with pytest.raises(ValueError, match="no probability"):
            augmentation(p=p)


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (Gain, {"low_db": 6, "high_db": -12}, r"Gain: \[low_db, high_db\] .* not \[6, -12\]"),
        (ColoredNoise, {"low_snr_db": 40, "high_snr_db": 10}, "low_snr_db, high_snr_db"),
        (ColoredNoise, {"exponents": (2, 1)}, "exponents"),
        (ColoredNoise, {"high_snr_db": np.inf}, "high_snr_db"),
        (NoiseFiles, {"low_snr_db": 40}, "low_snr_db, high_snr_db"),
    ],
)
def test_ranges_that_cannot_be_drawn_from_are_errors(noise_dir, kind, options, named):
    with pytest.raises(ValueError, match=named):
        kind(str(noise_dir), **options) if kind is NoiseFiles else kind(**options)


def test_what_is_the_same_in_all_epochs_does_not_begin_later():
    with pytest.raises(ValueError, match="from_epoch=3"):
        WaveformAugmentations({"gain": Gain()}, seed=0, from_epoch=3, fixed=True)


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
    assert np.abs(out).max() < 1e-6  # a codec may leave traces


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


def ramp(*lengths):
    """[B, 80, T]: each frame holds its number, in every bin; 0 beyond the length."""
    frames = torch.arange(max(lengths), dtype=torch.float32)
    rows = torch.stack([torch.where(frames < n, frames, 0.0) for n in lengths])
    return rows[:, None].repeat(1, 80, 1)


def warped(lengths, epoch=0, ids=None, **options):
    ids = ids or [f"u{i}" for i in range(len(lengths))]
    chain = SpectrogramAugmentations({"warp": TimeWarp(**options)}, seed=0)
    return chain(ramp(*lengths), torch.tensor(lengths), epoch, ids)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=4), st.integers(0, 1000))
def test_a_warp_keeps_the_ends_the_order_and_the_padding(lengths, epoch):
    width = 80
    out = warped(lengths, epoch, width=width)
    for row, length in zip(out, lengths, strict=True):
        assert (row == row[0]).all(), "all bins move together"
        time, beyond = row[0, :length], row[0, length:]
        assert not beyond.any()
        assert time[0] == 0 and time[-1] == pytest.approx(length - 1, abs=1e-3)
        if length > 1:  # one moment moves; no side is more than twice as fast
            speed = time.diff()
            assert speed.min() > 0.5 and speed.max() < 2.01
            assert len(torch.unique((speed * 1e2).round())) <= 3  # two sides, and where they meet
        moved = time - torch.arange(length)
        assert moved.abs().max() <= min(width, (length - 1) // 4) + 1e-3


def test_warps_move_moments_as_far_as_their_width_either_way():
    moved = torch.stack([warped([400], e, width=30)[0, 0] for e in range(300)]) - ramp(400)[0, 0]
    furthest = moved.gather(1, moved.abs().argmax(dim=1, keepdim=True))
    assert 27 < furthest.max() <= 30 and -30 <= furthest.min() < -27
    assert abs(furthest.mean()) < 3


def test_a_warp_interpolates_between_neighbouring_frames():
    spectrogram = torch.randn(1, 80, 200, generator=torch.Generator().manual_seed(0))
    chain = SpectrogramAugmentations({"warp": TimeWarp(20)}, seed=0)
    out, time = chain(spectrogram, torch.tensor([200]), 0, ["u0"]), warped([200], width=20)[0, 0]
    for frame, moment in enumerate(time.tolist()):
        before, share = int(moment), moment - int(moment)
        after = min(before + 1, 199)
        expected = (1 - share) * spectrogram[0, :, before] + share * spectrogram[0, :, after]
        torch.testing.assert_close(out[0, :, frame], expected, atol=1e-3, rtol=0)


def test_a_warp_does_not_depend_on_the_batch_and_comes_as_often_as_its_probability_says():
    together = warped([400, 250], ids=["a", "b"])
    torch.testing.assert_close(together[1:, :, :250], warped([250], ids=["b"]))
    changed = [not torch.equal(warped([100], e, p=0.3), ramp(100)) for e in range(300)]
    assert 60 <= sum(changed) <= 120


def test_all_views_are_warped_alike_and_masked_each_on_its_own():
    lengths, ids = [300, 200], ["a", "b"]
    augmentations = {"warp": TimeWarp(), "mask": SpecAugment()}
    chain = SpectrogramAugmentations(augmentations, seed=3)
    first, second = (
        chain(1 + ramp(*lengths), torch.tensor(lengths), 5, ids, view=view) for view in (0, 1)
    )
    assert not torch.equal(first == 0, second == 0)
    seen = (first != 0) & (second != 0)
    assert torch.equal(first[seen], second[seen])
    assert not torch.equal(first[seen], (1 + ramp(*lengths))[seen])


def test_the_number_of_adaptive_masks_follows_the_length():
    def masks(length, **options):
        """The mean number of stretches of one frame; two that meet are one, so few and apart."""
        options = {"frequency_masks": 0, "time_width": 1, "time_fraction": 1.0, **options}
        counts = []
        for epoch in range(40):
            hidden = (masked([length], epoch, **options)[0, 0] == 0).int()
            counts.append(float(hidden.sum()))
        return np.mean(counts)

    # a width is 0 or 1: half of the masks hide a frame
    for length, number in ((99, 0), (100, 1), (1000, 10), (1990, 19), (4000, 20)):
        mean = masks(length, time_masks=20, time_mask_rate=0.01)
        assert mean == pytest.approx(number / 2, abs=0.15 + 0.07 * number), (length, mean)
    assert masks(4000, time_masks=2) == pytest.approx(1, abs=0.4)


def test_impossible_masks_and_warps_are_errors():
    for wrong in ("time_mask_rate", "time_fraction", "frequency_width", "time_masks"):
        with pytest.raises(ValueError, match=f"{wrong}=-1 is negative"):
            SpecAugment(**{wrong: -1})
    with pytest.raises(ValueError, match=r"time_fraction=1\.5"):
        SpecAugment(time_fraction=1.5)
    with pytest.raises(ValueError, match="width=0"):
        TimeWarp(width=0)


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
