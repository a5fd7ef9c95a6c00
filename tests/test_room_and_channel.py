"""Rooms and channels do to a signal what they are told to, and do not move it in time."""

import numpy as np
import pytest
import soundfile

from asrlib.augmentations import BandPass, Clipping, Codec, RoomFiles, Shift, SyntheticRoom, channel
from asrlib.augmentations.channel import CODECS
from asrlib.augmentations.room import reverberate
from asrlib.data.audio import SAMPLE_RATE
from asrlib.randomness import generator
from tests.corpus import say
from tests.signals import hiss

SPEECH = say("abc bad ace dab")  # tones of 200 to 600 Hz with gaps, and a trace of hiss


def rng(*key):
    return generator("room and channel", *key)


def delay(audio, heard):
    """Samples by which ``heard`` comes later, by the peak of their correlation within 0.1 s."""
    most, size = SAMPLE_RATE // 10, 2 * len(audio)
    spectrum = np.conj(np.fft.rfft(audio, size)) * np.fft.rfft(heard, size)
    return int(np.roll(np.fft.irfft(spectrum, size), most)[: 2 * most].argmax()) - most


def decay_seconds(response):
    """RT60 by Schroeder's backward integration, extrapolated from −5 to −35 dB."""
    energy = np.cumsum(response[::-1].astype(np.float64) ** 2)[::-1]
    decibels = 10 * np.log10(energy / energy[0] + 1e-30)
    slope = (decibels <= -5) & (decibels >= -35)
    return -60 / np.polyfit(np.flatnonzero(slope) / SAMPLE_RATE, decibels[slope], 1)[0]


def click(seconds=1.5):
    audio = np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)
    audio[0] = 1.0
    return audio


@pytest.mark.parametrize("rt60", [0.2, 0.5, 1.0])
def test_a_synthetic_room_decays_in_the_time_asked_for(rt60):
    room = SyntheticRoom((rt60, rt60), (0, 0), p=1)
    for i in range(5):
        tail = room(click(), rng(i))[1:]
        assert decay_seconds(tail) == pytest.approx(rt60, rel=0.1)


@pytest.mark.parametrize("ratio", [-5, 0, 10])
def test_a_synthetic_room_has_the_direct_to_reverberant_ratio_asked_for(ratio):
    response = SyntheticRoom((0.3, 0.3), (ratio, ratio), p=1)(click(), rng()).astype(np.float64)
    direct, rest = response[0] ** 2, np.sum(response[1:] ** 2)
    assert 10 * np.log10(direct / rest) == pytest.approx(ratio, abs=0.01)


def test_what_a_room_draws_fills_the_ranges_asked_for():
    room = SyntheticRoom((0.2, 0.6), (0, 10), p=1)
    responses = [room.response(rng(i)) for i in range(100)]
    seconds = [len(response) / SAMPLE_RATE for response in responses]
    ratios = [-10 * np.log10(np.sum(response[1:] ** 2)) for response in responses]
    assert 0.2 <= min(seconds) < 0.22 and 0.58 < max(seconds) <= 0.6
    assert 0 <= min(ratios) + 1e-3 < 0.5 and 9.5 < max(ratios) < 10.01


def test_reverberation_is_convolution_at_the_level_and_length_there_was():
    audio, response = hiss(0.02, seed=1), hiss(0.01, seed=2)
    for direct in (0, 50):
        exact = np.convolve(audio.astype(np.float64), response)[direct : direct + len(audio)]
        heard = reverberate(audio, response, direct)
        np.testing.assert_allclose(heard / np.std(heard), exact / np.std(exact), atol=2e-2, rtol=0)
        assert np.mean(heard**2) == pytest.approx(np.mean(audio**2), rel=1e-4)


def test_a_recorded_room_is_moved_so_that_its_direct_sound_is_on_time(tmp_path):
    response = np.pad(SyntheticRoom((0.3, 0.3), (5, 5)).response(rng()), (700, 0))
    soundfile.write(tmp_path / "room.wav", response, SAMPLE_RATE, subtype="FLOAT")
    audio = hiss(1.0)
    heard = RoomFiles(str(tmp_path), p=1)(audio, rng())
    assert delay(audio, heard) == 0
    np.testing.assert_allclose(heard, reverberate(audio, response[700:]), atol=1e-5)
    with pytest.raises(FileNotFoundError, match="no audio files"):
        RoomFiles(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(("low", "high"), [(300, 3400), (100, 6000)])
def test_a_band_pass_takes_away_what_is_outside_and_nothing_inside(low, high):
    audio = hiss(2.0)
    heard = BandPass((low, low), (high, high), p=1)(audio, rng())
    frequency = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)
    before, after = (np.abs(np.fft.rfft(x.astype(np.float64))) ** 2 for x in (audio, heard))

    def change(part):
        return 10 * np.log10(after[part].sum() / before[part].sum())

    assert change(frequency < low / 1.5) < -20
    assert change(frequency > min(1.5 * high, 7500)) < (-20 if high < 5000 else -10)
    assert abs(change((frequency > 1.2 * low) & (frequency < high / 1.2))) < 0.3
    assert delay(audio, heard) == 0


def test_a_band_pass_draws_its_corners():
    audio, corners = hiss(1.0), []
    frequency = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)
    for i in range(40):
        heard = BandPass((200, 400), (3000, 4000), p=1)(audio, rng(i))
        gain = np.abs(np.fft.rfft(heard)) / np.abs(np.fft.rfft(audio))
        passed = frequency[np.convolve(gain, np.ones(9) / 9, "same") > np.sqrt(0.5)]
        corners.append((passed[0], passed[-1]))
    low, high = np.array(corners).T
    assert 180 < low.min() < 240 and 360 < low.max() < 420
    assert 2950 < high.min() < 3150 and 3850 < high.max() < 4050


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3])
def test_the_share_of_samples_that_clipping_cuts_is_the_one_asked_for(share):
    audio = hiss(1.0)
    heard = Clipping((share, share), p=1)(audio, rng())
    cut = heard != audio
    assert np.mean(cut) == pytest.approx(share, abs=1e-4)
    assert np.all(np.abs(heard[cut]) == np.abs(heard).max())
    assert np.array_equal(np.sign(heard), np.sign(audio))


def test_clipping_does_not_silence_what_is_mostly_digital_silence():
    audio = click(0.1)
    np.testing.assert_array_equal(Clipping((0.1, 0.1), p=1)(audio, rng()), audio)


@pytest.mark.parametrize("level", [0.0, 0.7, 0.95])
@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_changes_little_and_moves_nothing(codec, level):
    through = Codec([codec], (level, level), p=1)
    heard = through(SPEECH, rng())
    assert heard.shape == SPEECH.shape and heard.dtype == np.float32
    assert abs(delay(SPEECH, heard)) <= 0.002 * SAMPLE_RATE
    assert 0.8 < np.corrcoef(SPEECH, heard)[0, 1] < 0.999999
    np.testing.assert_array_equal(heard, through(SPEECH, rng()))


def test_all_codecs_are_drawn_and_higher_levels_lose_more():
    def lost(codec, level):
        return 1 - np.corrcoef(SPEECH, Codec([codec], (level, level), p=1)(SPEECH, rng()))[0, 1]

    for codec in ("opus", "mp3"):
        assert lost(codec, 0.1) < lost(codec, 0.97)
    every, short = Codec(p=1), SPEECH[:4000]
    made = {every(short, rng(i)).tobytes() for i in range(12)}
    gsm = {Codec(["gsm"], p=1)(short, rng()).tobytes()}
    assert len(made) > 2 and gsm < made


def test_a_delay_of_a_codec_is_removed(monkeypatch):
    late = 1105  # of MP3 where the file does not tell it

    def delayed(audio, codec, level):
        return np.pad(audio, (late, 0))

    monkeypatch.setattr(channel, "round_trip", delayed)
    np.testing.assert_array_equal(Codec(["mp3"], p=1)(SPEECH, rng()), SPEECH)


def test_a_codec_that_libsndfile_lacks_is_an_error_at_once(monkeypatch):
    missing = ({"format": "WAV", "subtype": "VORBIS"}, SAMPLE_RATE, False)
    monkeypatch.setitem(CODECS, "gsm", missing)
    with pytest.raises(RuntimeError, match=r"libsndfile \d.* cannot write gsm .*leave it out"):
        Codec()
    Codec(["opus"])


def test_a_shift_moves_all_and_fills_with_zeros():
    seen, audio = set(), hiss(0.25)
    for i in range(200):
        heard = Shift(0.01, p=1)(audio, rng(i))
        later = delay(audio, heard)
        seen.add(later)
        expected = np.zeros_like(audio)
        expected[max(later, 0) : len(audio) + min(later, 0)] = audio[
            max(-later, 0) : len(audio) - max(later, 0)
        ]
        np.testing.assert_array_equal(heard, expected)
    assert -160 <= min(seen) < -150 and 150 < max(seen) <= 160


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SyntheticRoom(rt60=(0.0, 0.5)), "rt60"),
        (lambda: SyntheticRoom(direct_to_reverberant_db=(5, 0)), "direct_to_reverberant_db"),
        (lambda: BandPass(low_hz=(300,)), "low_hz"),
        (lambda: BandPass(low_hz=(300, 400), high_hz=(350, 4000)), "high_hz"),
        (lambda: BandPass(high_hz=(3000, 9000)), "high_hz"),
        (lambda: BandPass(order=0), "order"),
        (lambda: Clipping(share=(0.1, 1.2)), "share"),
        (lambda: Codec(codecs=[]), "codecs"),
        (lambda: Codec(codecs=["amr"]), "amr"),
        (lambda: Codec(level=(0.5, 1.0)), "level"),
        (lambda: Shift(-1), "max_seconds"),
    ],
)
def test_options_that_make_no_sense_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
