"""Log-mel features equal torchaudio's, and see nothing of the padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrlib.model.features import FLOOR, LogMel, mel_filterbank
from tests.signals import hiss, tone


def waveform(seconds, seed=0):
    return torch.from_numpy(hiss(seconds, seed))


@pytest.mark.parametrize(
    ("n_mels", "f_min", "f_max"), [(80, 20, 8000), (64, 0, 8000), (40, 60, 7600)]
)
def test_the_filterbank_is_torchaudios(n_mels, f_min, f_max):
    torchaudio = pytest.importorskip("torchaudio")
    expected = torchaudio.functional.melscale_fbanks(
        257, float(f_min), float(f_max), n_mels, 16_000, norm=None, mel_scale="htk"
    )
    torch.testing.assert_close(mel_filterbank(n_mels, f_min, f_max), expected, atol=1e-5, rtol=0)


def test_features_before_normalisation_are_torchaudios(monkeypatch):
    torchaudio = pytest.importorskip("torchaudio")
    reference = torchaudio.transforms.MelSpectrogram(
        16_000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        f_min=20.0,
        f_max=8000.0,
        n_mels=80,
        center=True,
        pad_mode="constant",
        power=2.0,
        norm=None,
        mel_scale="htk",
    )
    monkeypatch.setattr(LogMel, "normalize", staticmethod(lambda log_mel, lengths: log_mel))
    audio = torch.stack([waveform(1.003), torch.from_numpy(tone(440, 1.003)).float()])
    features, lengths = LogMel()(audio, torch.tensor([16_048, 16_048]))
    expected = reference(audio).clamp(min=FLOOR).log()
    assert lengths.tolist() == [expected.shape[-1]] * 2
    torch.testing.assert_close(features, expected, atol=1e-3, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=4),
    st.integers(0, 700),
    st.sampled_from([None, 5]),
)
def test_padding_does_not_change_features_whatever_it_holds(samples, more, floor_db):
    features = LogMel(floor_db=floor_db)
    clips = [waveform(n / 16_000, seed=n) for n in samples]
    batch = torch.full((len(clips), max(samples) + more), 0.7)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    together, lengths = features(batch, torch.tensor(samples))
    for row, length, clip in zip(together, lengths.tolist(), clips, strict=True):
        alone, (own_length,) = features(clip[None], torch.tensor([len(clip)]))
        assert length == own_length == alone.shape[-1]
        torch.testing.assert_close(row[:, :length], alone[0], atol=1e-4, rtol=0)
        assert not row[:, length:].any()


def test_every_bin_has_mean_0_and_variance_1_over_its_own_frames():
    audio = torch.zeros(2, 32_000)
    audio[0], audio[1, :16_000] = waveform(2.0), waveform(1.0, seed=1)
    spectrogram, lengths = LogMel()(audio, torch.tensor([32_000, 16_000]))
    for row, length in zip(spectrogram, lengths.tolist(), strict=True):
        real = row[:, :length]
        assert real.mean(dim=1).abs().max() < 1e-4
        assert (real.var(dim=1, correction=0) - 1).abs().max() < 0.1  # MIN_VARIANCE beside 0.2


def test_gain_drops_out():
    audio, length = waveform(1.0)[None], torch.tensor([16_000])
    loud, quiet = LogMel()(audio, length)[0], LogMel()(0.05 * audio, length)[0]
    torch.testing.assert_close(loud, quiet, atol=1e-2, rtol=0)


def test_with_a_floor_the_rounding_of_a_file_is_hardly_heard():
    """Of what has nothing above 4 kHz, as after a codec: the rest is rounding, or nothing at all."""
    spectrum = torch.fft.rfft(waveform(1.0))
    spectrum[4_000:] = 0
    audio = 0.1 * torch.fft.irfft(spectrum)[None]
    rounded, length = (audio * 32768).floor() / 32768, torch.tensor([16_000])
    apart = []
    for floor_db in (None, 45):
        features = LogMel(floor_db=floor_db)
        apart.append((features(audio, length)[0] - features(rounded, length)[0]).abs().max())
    assert apart[1] < 0.3 * apart[0] and apart[0] > 0.5


def test_with_a_floor_gain_drops_out_exactly():
    audio, length = waveform(1.0)[None], torch.tensor([16_000])
    features = LogMel(floor_db=20)
    loud, quiet = features(audio, length)[0], features(audio / 64, length)[0]
    torch.testing.assert_close(loud, quiet, atol=1e-3, rtol=0)


def test_a_floor_above_the_speech_is_refused():
    with pytest.raises(ValueError, match=r"features\.floor_db must be positive, not -3"):
        LogMel(floor_db=-3)


@pytest.mark.parametrize("floor_db", [None, 45])
@pytest.mark.parametrize("samples", [1, 100, 160, 16_000])
def test_silence_gives_zeros(samples, floor_db):
    spectrogram, lengths = LogMel(floor_db=floor_db)(
        torch.zeros(1, samples), torch.tensor([samples])
    )
    assert spectrogram.shape == (1, 80, samples // 160 + 1)
    assert lengths.tolist() == [samples // 160 + 1]
    assert spectrogram.abs().max() < 1e-3  # rounding of the mean, not blown up to 1


def test_a_single_sample_is_enough():
    spectrogram, lengths = LogMel()(torch.full((1, 1), 0.5), torch.tensor([1]))
    assert lengths.tolist() == [1]
    assert torch.isfinite(spectrogram).all()


def test_features_stay_in_full_precision_under_autocast():
    audio, length = waveform(1.0)[None], torch.tensor([16_000])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = LogMel()(audio, length)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, LogMel()(audio, length)[0])


def test_features_are_no_part_of_a_checkpoint():
    assert not LogMel().state_dict()
