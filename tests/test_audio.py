"""Any file that libsndfile reads becomes mono float32 at 16 kHz; any other is refused by name."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrlib.data.audio import (
    AudioError,
    AudioInfo,
    audio_info,
    is_audio,
    read_audio,
    stream_audio,
    to_mono_16k,
)
from tests.signals import pitch, tone

FORMATS = [
    *[("flac", "FLAC", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24")],
    *[("wav", "WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32")],
    *[("WAV", "WAV", subtype) for subtype in ("FLOAT", "DOUBLE", "ULAW")],
    ("mp3", "MP3", "MPEG_LAYER_III"),
    ("ogg", "OGG", "VORBIS"),
    ("OGA", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
]
RATES = [8_000, 16_000, 22_050, 44_100, 48_000, 96_000]
OPUS_RATES, MP3_RATES = {8_000, 16_000, 48_000}, set(RATES) - {96_000}


def _exists(format, rate):
    subtype = format[2]
    return {"OPUS": rate in OPUS_RATES, "MPEG_LAYER_III": rate in MP3_RATES}.get(subtype, True)


@pytest.mark.parametrize(
    ("format", "rate"),
    [(f, r) for f in FORMATS for r in RATES if _exists(f, r)],
    ids=lambda x: "-".join(x) if isinstance(x, tuple) else str(x),
)
def test_every_format_is_read_as_mono_float32_at_16_khz(tmp_path, format, rate):
    suffix, container, subtype = format
    path = tmp_path / f"tone.{suffix}"
    both = np.stack([tone(440, 0.5, rate), tone(440, 0.5, rate, amplitude=0.3)], axis=1)
    soundfile.write(path, both, rate, format=container, subtype=subtype)
    audio, info = read_audio(path), audio_info(path)
    assert is_audio(path)
    assert audio.dtype == np.float32
    assert audio.flags.c_contiguous
    assert audio.shape == (8_000,)
    assert (info.duration, info.sample_rate, info.channels) == (0.5, rate, 2)
    assert abs(pitch(audio) - 440) <= 2
    assert 0.33 < np.abs(audio[2_000:-2_000]).max() < 0.47  # the mean of 0.5 and 0.3


def test_stereo_is_the_mean_of_its_channels(tmp_path):
    left, right = tone(440, 0.1), tone(1000, 0.1)
    soundfile.write(tmp_path / "x.wav", np.stack([left, right], 1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "x.wav"), (left + right) / 2, atol=1e-7)


def test_audio_at_16_khz_is_not_touched(tmp_path):
    samples = tone(440, 0.1).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", samples, 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(str(tmp_path / "x.wav")), samples)


def test_the_content_decides_not_the_ending(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(440, 0.5), 16_000, format="OGG", subtype="OPUS")
    assert abs(pitch(read_audio(tmp_path / "x.wav")) - 440) <= 2


def test_what_lies_above_8_khz_is_filtered_not_folded(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(10_000, 0.5, 48_000), 48_000)
    assert np.abs(read_audio(tmp_path / "x.wav")[1_000:-1_000]).max() < 1e-3


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_a_stream_in_pieces_is_the_whole_file(tmp_path, rate):
    samples = np.stack([tone(440, 25.7, rate), tone(700, 25.7, rate)], axis=1)
    soundfile.write(tmp_path / "x.wav", samples, rate)
    pieces = list(stream_audio(tmp_path / "x.wav"))
    whole = to_mono_16k(soundfile.read(tmp_path / "x.wav")[0], rate)
    assert len(pieces) > 2
    assert max(map(len, pieces)) < 11 * 16_000  # constant memory
    assert all(piece.dtype == np.float32 for piece in pieces)
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-4)


def test_a_file_above_the_limit_is_none_and_one_at_the_limit_is_read(tmp_path):
    soundfile.write(tmp_path / "x.wav", tone(440, 0.5), 16_000)
    assert read_audio(tmp_path / "x.wav", max_seconds=0.4) is None
    np.testing.assert_array_equal(
        read_audio(tmp_path / "x.wav", max_seconds=0.5), read_audio(tmp_path / "x.wav")
    )


def _missing(path):
    pass


def _empty(path):
    path.touch()


def _text(path):
    path.write_text("I am no audio. " * 100)


def _folder(path):
    path.mkdir()


def _link_to_nothing(path):
    path.symlink_to(path.parent / "gone.wav")


def _not_a_number(path):
    samples = tone(440, 0.1)
    samples[100] = np.nan
    soundfile.write(path, samples, 16_000, subtype="FLOAT")


def _infinite(path):
    soundfile.write(path, np.full(100, np.inf), 16_000, subtype="FLOAT")


def _no_samples(path):
    soundfile.write(path, np.zeros(0), 16_000)


def _strange_rate(path):
    soundfile.write(path, tone(440, 0.1), 100)


def _truncated_header(path):
    soundfile.write(path, tone(440, 0.5), 16_000, format="FLAC")
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_missing, "no such file"),
        (_empty, "empty file"),
        (_text, "not readable"),
        (_folder, "not readable"),
        (_link_to_nothing, "symbolic link to nothing"),
        (_not_a_number, "1 samples are NaN"),
        (_infinite, "NaN or infinite"),
        (_no_samples, "no samples"),
        (_strange_rate, "100 Hz"),
        (_truncated_header, "not readable"),
    ],
)
def test_what_is_no_audio_is_an_error_that_names_the_file(tmp_path, spoil, reason):
    path = tmp_path / "spoilt.wav"
    spoil(path)
    for read in (read_audio, lambda path: list(stream_audio(path))):
        with pytest.raises(AudioError) as error:
            read(path)
        assert str(path) in str(error.value)
        assert reason in str(error.value)


def test_less_than_a_sample_at_16_khz_is_an_error_that_names_the_file(tmp_path):
    soundfile.write(tmp_path / "short.wav", np.full(2, 0.5), 96_000)
    with pytest.raises(AudioError, match=r"short\.wav: no samples"):
        read_audio(tmp_path / "short.wav")


@pytest.mark.parametrize("kind", ["int16", "int32"])
def test_integers_are_taken_by_their_full_scale(kind):
    numbers = np.array([-0.5, 0.0, 0.25], np.float32)
    integers = (numbers * (np.iinfo(kind).max + 1.0)).astype(kind)
    np.testing.assert_array_equal(to_mono_16k(integers, 16_000), numbers)
    np.testing.assert_array_equal(to_mono_16k(integers[:, None], 16_000), numbers)


def test_unsigned_integers_are_refused():
    with pytest.raises(AudioError, match="uint8"):
        to_mono_16k(np.full(100, 128, np.uint8), 16_000)


@pytest.mark.parametrize(("samples", "rate"), [(0, 16_000), (0, 44_100), (2, 96_000)])
def test_samples_in_memory_that_hold_nothing_are_an_error(samples, rate):
    with pytest.raises(AudioError, match="no samples"):
        to_mono_16k(np.full((samples, 2), 0.5), rate)


def test_samples_that_lie_the_other_way_round_are_refused():
    with pytest.raises(AudioError, match="transpose"):
        to_mono_16k(np.full((2, 800), 0.5), 16_000)


def test_a_file_that_the_disk_does_not_give_is_named(tmp_path, monkeypatch):
    def stat(*_, **__):
        raise PermissionError(13, "Permission denied")

    soundfile.write(tmp_path / "locked.wav", tone(440, 0.5), 16_000)
    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(AudioError, match=r"locked\.wav: not readable.*denied"):
        audio_info(tmp_path / "locked.wav")


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_flac_from_a_pipe_does_not_know_its_length(tmp_path, rate):
    path = tmp_path / "piped.flac"
    soundfile.write(path, tone(440, 25, rate), rate)
    whole, content = read_audio(path), bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO's samples
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert soundfile.info(path).frames > 2**40
    np.testing.assert_array_equal(read_audio(path), whole)
    assert audio_info(path) == AudioInfo(25.0, rate, 1)


@pytest.mark.parametrize("spoil", [_missing, _empty, _text, _no_samples, _truncated_header])
def test_what_the_header_shows_is_found_without_decoding(tmp_path, spoil):
    path = tmp_path / "spoilt.wav"
    spoil(path)
    with pytest.raises(AudioError, match=r"spoilt\.wav"):
        audio_info(path)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("format", ["FLAC", "WAV", "MP3", "OGG"])
def test_a_truncated_file_is_named_or_gives_finite_audio(tmp_path, format, share):
    path = tmp_path / "truncated.audio"
    soundfile.write(path, tone(440, 2.0), 16_000, format=format)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    try:
        audio = read_audio(path)
    except AudioError as error:
        audio, reason = None, str(error)
    if audio is None:
        assert str(path) in reason
    else:
        assert 0 < len(audio) <= 32_000
        assert np.isfinite(audio).all()


def test_what_may_not_be_written_to_is_copied_for_pytorch():
    samples = np.zeros(100, np.float32)
    samples.flags.writeable = False
    assert to_mono_16k(samples, 16_000).flags.writeable
