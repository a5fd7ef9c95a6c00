"""Indexes name what they leave out, come back from the cache, and never touch the data folder."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import soundfile

from asrlib.data import CustomDirDataset, LibriSpeechDataset, SpeechDataset
from asrlib.data import custom_dir as custom_dir_module
from asrlib.data import librispeech as librispeech_module
from asrlib.data.custom_dir import custom_dir_index
from asrlib.data.librispeech import librispeech_index
from asrlib.data.manifest import manifest_index
from asrlib.data.utterance import cache_dir
from tests.signals import tone


def listing(folder):
    return sorted((str(p), p.lstat().st_mtime_ns, p.lstat().st_size) for p in folder.rglob("*"))


def forbid_scanning(monkeypatch):
    def scan(*_):
        raise AssertionError("scanned again")

    monkeypatch.setattr(librispeech_module, "_scan_part", scan)
    monkeypatch.setattr(custom_dir_module, "_scan", scan)


def test_librispeechs_layout_is_read_in_order_with_any_ending(librispeech_dir):
    index = librispeech_index(librispeech_dir, ["train", "dev"])
    assert [u.id for u in index.utterances] == [
        *(f"11-7-000{i}" for i in range(3)),
        *(f"12-7-000{i}" for i in range(3, 6)),
        *(f"13-7-000{i}" for i in range(6, 8)),
    ]
    assert [u.speaker for u in index.utterances] == ["11"] * 3 + ["12"] * 3 + ["13"] * 2
    assert index.utterances[1].text == "DON'T STOP"
    durations = [u.duration for u in index.utterances]
    assert durations == pytest.approx([0.4 + 0.1 * i for i in range(8)], abs=0.01)
    assert index.skipped == {}


def test_audio_without_a_transcript_is_left_out_by_name(librispeech_dir):
    chapter = librispeech_dir / "train" / "11" / "7"
    soundfile.write(chapter / "11-7-0099.wav", tone(440, 0.5), 16_000)
    (chapter / "11-7-0098.wav").touch()
    (chapter / "11-7.trans.txt").open("a").write("11-7-0098 BROKEN\n\n11-7-0097 NO AUDIO\n")
    index = librispeech_index(librispeech_dir, ["train"])
    assert len(index.utterances) == 6
    names = {os.path.basename(path) for path in index.skipped}
    assert names == {"11-7-0098.wav", "11-7-0099.wav", "11-7-0097"}
    assert "no such recording" in index.skipped["11-7-0097"]
    assert ".trans.txt" in index.skipped[str(chapter / "11-7-0099.wav")]
    assert "empty file" in index.skipped[str(chapter / "11-7-0098.wav")]


def test_a_line_with_an_id_alone_is_an_empty_text(tmp_path):
    (tmp_path / "x.trans.txt").write_text("1-2-0 A  WORD\n1-2-1\n\n1-2-2 \n")
    read = librispeech_module.read_transcripts(tmp_path / "x.trans.txt")
    assert read == {"1-2-0": "A  WORD", "1-2-1": "", "1-2-2": ""}


def test_a_missing_part_names_those_that_are_there(librispeech_dir):
    with pytest.raises(FileNotFoundError, match=r"'test-clean'.*\['dev', 'train'\]"):
        librispeech_index(librispeech_dir, ["train", "test-clean"])


def test_a_part_without_audio_is_an_error(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="SPEAKER/CHAPTER"):
        librispeech_index(tmp_path, ["train"])


def test_a_custom_folder_needs_no_transcriptions(custom_dir):
    index = custom_dir_index(custom_dir, speaker_pattern="-(.+)-")
    assert [u.id for u in index.utterances] == ["a1-ann-b", "a2-bob-b", "a3-ann-b", "a4-bob-b"]
    assert [u.text for u in index.utterances] == [
        "One two.",
        "Don't stop.",
        "A cat sat on the mat.",
        None,
    ]
    assert [u.speaker for u in index.utterances] == ["ann", "bob", "ann", "bob"]
    for path in (custom_dir / "transcriptions").iterdir():
        path.unlink()
    (custom_dir / "transcriptions").rmdir()
    index = custom_dir_index(custom_dir)
    assert [(u.text, u.speaker) for u in index.utterances] == [(None, None)] * 4


def test_transcripts_are_read_as_windows_and_macos_write_them(custom_dir):
    audio, texts = custom_dir / "audio", custom_dir / "transcriptions"
    decomposed, composed = "cafe\u0301", "caf\u00e9"
    soundfile.write(audio / f"{decomposed}.wav", tone(440, 0.3), 16_000)
    (texts / f"{composed}.txt").write_text("One.", "utf-8-sig")
    (texts / "a2-bob-b.txt").write_text("Don't go.\r\n", "utf-16")
    (texts / "a4-bob-b.txt").mkdir()
    index = custom_dir_index(custom_dir)
    found = {u.id: u.text for u in index.utterances}
    assert (found[decomposed], found["a2-bob-b"], found["a4-bob-b"]) == ("One.", "Don't go.", None)
    assert index.skipped == {}
    (texts / "a3-ann-b.txt").unlink()
    (texts / "a3-ann-b.txt").symlink_to(custom_dir / "nowhere")
    index = custom_dir_index(custom_dir)
    assert {u.id: u.text for u in index.utterances}["a3-ann-b"] is None
    ((path, reason),) = index.skipped.items()
    assert os.path.basename(path) == "a3-ann-b.txt" and "not readable" in reason


def test_the_cache_has_a_place_where_there_is_no_home(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ASRLIB_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/asrlib")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir().is_relative_to(tempfile.gettempdir())


def test_of_two_files_with_one_id_the_second_is_left_out_by_name(custom_dir):
    twin = custom_dir / "audio" / "a1-ann-b.flac"
    soundfile.write(twin, tone(440, 0.3), 16_000)
    index = custom_dir_index(custom_dir)
    assert len(index.utterances) == 4
    assert len({u.id for u in index.utterances}) == 4
    ((path, reason),) = index.skipped.items()
    assert os.path.basename(path) == "a1-ann-b.wav"
    assert "same id as another (a1-ann-b.flac)" in reason


@pytest.mark.parametrize("name", ["a1-ann-b.txt", "a1-ann-b.flac"])
def test_what_cannot_be_read_does_not_hide_a_recording_of_the_same_id(custom_dir, name):
    (custom_dir / "audio" / name).write_text("a cat")
    index = custom_dir_index(custom_dir)
    assert "a1-ann-b" in [u.id for u in index.utterances] and len(index.utterances) == 4
    assert [os.path.basename(path) for path in index.skipped] == [name]


def test_endings_of_transcripts_may_be_in_upper_case(custom_dir):
    texts = {u.id: u.text for u in custom_dir_index(custom_dir).utterances}
    for path in (custom_dir / "transcriptions").iterdir():
        path.rename(path.with_suffix(".TXT"))
    assert {u.id: u.text for u in custom_dir_index(custom_dir).utterances} == texts


def test_what_is_no_audio_is_named_and_what_is_hidden_ignored(custom_dir):
    (custom_dir / "audio" / "README.md").write_text("about")
    (custom_dir / "audio" / "b.wav").write_text("about")
    (custom_dir / "audio" / ".DS_Store").write_text("about")
    (custom_dir / "audio" / "folder").mkdir()
    index = custom_dir_index(custom_dir)
    assert len(index.utterances) == 4
    assert [os.path.basename(path) for path in index.skipped] == ["README.md", "b.wav"]


def test_a_folder_of_recordings_among_the_recordings_is_named(custom_dir):
    (custom_dir / "audio" / "more").mkdir()
    shutil.move(custom_dir / "audio" / "a1-ann-b.wav", custom_dir / "audio" / "more")
    reasons = custom_dir_index(custom_dir).skipped
    assert "belong into audio itself" in reasons[str(custom_dir / "audio" / "more")]
    assert "no such recording" in reasons["a1-ann-b"]


def test_a_name_that_is_not_utf_8_is_named_and_the_others_are_read(custom_dir):
    path = custom_dir / "audio" / "a1-ann-b.wav"
    os.rename(path, os.fsencode(path.parent) + b"/caf\xe9.wav")
    for _ in range(2):  # the second time from the cache
        index = custom_dir_index(custom_dir)
        assert len(index.utterances) == 3
        assert any(
            "caf\ufffd.wav: its name is not UTF-8" in reason for reason in index.skipped.values()
        )
    json.dumps(index.skipped, ensure_ascii=False).encode()


def test_hidden_texts_are_nobodys(custom_dir):
    (custom_dir / "transcriptions" / "._a1-ann-b.txt").write_bytes(b"\0Mac OS X attributes")
    index = custom_dir_index(custom_dir)
    assert len(index.utterances) == 4 and not index.skipped


def test_a_custom_folder_without_audio_says_what_it_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "audio")):
        custom_dir_index(tmp_path)


def test_a_manifest_starts_from_its_own_folder(custom_dir):
    rows = [
        {"path": "audio/a1-ann-b.wav", "text": "one two", "speaker": "ann"},
        {"path": str(custom_dir / "audio" / "a2-bob-b.WAV"), "id": "second"},
        {"path": "audio/unseen.wav", "id": "third", "duration": 2.5},
        {"path": "audio/gone.wav"},
    ]
    path = custom_dir / "manifest.jsonl"
    path.write_text("\n\n".join(map(json.dumps, rows)))
    index = manifest_index(path)
    assert [(u.id, u.text, u.speaker) for u in index.utterances] == [
        ("a1-ann-b", "one two", "ann"),
        ("second", None, None),
        ("third", None, None),
    ]
    assert [u.duration for u in index.utterances] == pytest.approx([0.5, 0.6, 2.5])
    assert index.utterances[0].path == str(custom_dir / "audio" / "a1-ann-b.wav")
    assert [os.path.basename(path) for path in index.skipped] == ["gone.wav"]


@pytest.mark.parametrize(
    "bad", ["not json", '["a list"]', '{"id": "no path"}', '{"path": 5}', '"text"']
)
def test_a_bad_line_of_a_manifest_is_named(custom_dir, bad):
    path = custom_dir / "manifest.jsonl"
    path.write_text('{"path": "audio/a1-ann-b.wav"}\n' + bad)
    with pytest.raises(ValueError, match=r"manifest\.jsonl, line 2: no JSON object with a path"):
        manifest_index(path)


@pytest.mark.parametrize("duration", ["1.0", -1, 0, float("nan"), []])
def test_a_duration_of_a_manifest_is_a_number_of_seconds(custom_dir, duration):
    path = custom_dir / "manifest.jsonl"
    path.write_text(json.dumps({"path": "audio/a1-ann-b.wav", "duration": duration}))
    with pytest.raises(ValueError, match=r"line 1: duration=.* is no number of seconds"):
        manifest_index(path)


def test_a_manifest_may_begin_as_windows_editors_do(custom_dir):
    path = custom_dir / "manifest.jsonl"
    path.write_text('{"path": "audio/a1-ann-b.wav"}\n', encoding="utf-8-sig")
    assert [u.id for u in manifest_index(path).utterances] == ["a1-ann-b"]


def test_an_id_that_comes_twice_in_a_manifest_is_an_error(custom_dir):
    path = custom_dir / "manifest.jsonl"
    path.write_text('{"path": "audio/a1-ann-b.wav"}\n' * 2)
    with pytest.raises(ValueError, match=r"line 2: the id 'a1-ann-b' comes twice"):
        manifest_index(path)


def test_the_second_time_the_index_comes_from_the_cache(librispeech_dir, custom_dir, monkeypatch):
    (librispeech_dir / "train" / "11" / "7" / "lost.wav").touch()
    first = librispeech_index(librispeech_dir, ["train", "dev"]), custom_dir_index(custom_dir)
    forbid_scanning(monkeypatch)
    again = librispeech_index(librispeech_dir, ["train", "dev"]), custom_dir_index(custom_dir)
    assert again == first
    assert len(first[0].skipped) == 1
    with pytest.raises(AssertionError, match="scanned again"):  # other options, another index
        custom_dir_index(custom_dir, speaker_pattern="-(.+)-")


def _change_a_text(root):
    (root / "transcriptions" / "a1-ann-b.txt").write_text("something else")


def _add_a_text(root):
    (root / "transcriptions" / "a4-bob-b.txt").write_text("new")


def _add_a_recording(root):
    soundfile.write(root / "audio" / "new.wav", tone(440, 0.5), 16_000)


def _remove_a_recording(root):
    (root / "audio" / "a1-ann-b.wav").unlink()


def _change_a_recording(root):
    soundfile.write(root / "audio" / "a1-ann-b.wav", tone(440, 0.9), 16_000)


@pytest.mark.parametrize(
    "change",
    [_change_a_text, _add_a_text, _add_a_recording, _remove_a_recording, _change_a_recording],
)
def test_a_changed_folder_is_scanned_again(custom_dir, change):
    before = custom_dir_index(custom_dir)
    change(custom_dir)
    after = custom_dir_index(custom_dir)
    assert after != before


def test_a_cached_index_holds_in_another_working_directory(custom_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    custom_dir_index("custom")
    monkeypatch.chdir("/")
    index = custom_dir_index(custom_dir)
    assert all(os.path.exists(u.path) for u in index.utterances)


def test_nothing_is_written_into_a_data_folder(librispeech_dir, custom_dir):
    before = listing(librispeech_dir), listing(custom_dir)
    LibriSpeechDataset(librispeech_dir, ["train"])[0, 0]
    CustomDirDataset(custom_dir)[0, 0]
    assert (listing(librispeech_dir), listing(custom_dir)) == before


def test_a_list_of_ids_chooses_utterances_and_names_what_is_missing(librispeech_dir, tmp_path):
    whole = LibriSpeechDataset(librispeech_dir, ["train", "dev"])
    last, first = whole.utterances[-1], whole.utterances[0]
    listed = tmp_path / "ids.txt"
    listed.write_text(f"\ufeff{last.id}\n\nno such id\n{first.id}\r\n", "utf-8", newline="")
    dataset = LibriSpeechDataset(librispeech_dir, ["train", "dev"], only=str(listed))
    assert dataset.utterances == [first, last]  # in the order of the data
    assert "(it is named in " in dataset.skipped["no such id"]
    named = {"the data do not have it": 1}
    assert dict(dataset.skipped_by_reason()) == dict(whole.skipped_by_reason()) | named
    one = LibriSpeechDataset(librispeech_dir, ["train", "dev"], only=str(listed), limit=1)
    assert one.utterances == [first]
    for limit in (0, -1):
        with pytest.raises(ValueError, match=f"limit={limit}"):
            LibriSpeechDataset(librispeech_dir, ["train"], limit=limit)
    listed.write_text("no such id\n")
    with pytest.raises(ValueError, match="the data do not have it"):
        LibriSpeechDataset(librispeech_dir, ["train"], only=str(listed))


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(
    custom_dir, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").touch()  # a folder below a file: fails for root as well
    monkeypatch.setenv("ASRLIB_CACHE", str(tmp_path / "file" / "cache"))
    assert len(custom_dir_index(custom_dir).utterances) == 4
    assert "ASRLIB_CACHE" in capsys.readouterr().out


def test_training_leaves_out_what_it_cannot_use_and_evaluation_keeps_it(custom_dir):
    (custom_dir / "transcriptions" / "a1-ann-b.txt").write_text("Room 5")
    (custom_dir / "transcriptions" / "a2-bob-b.txt").write_text("...")
    index = custom_dir_index(custom_dir)
    assert len(SpeechDataset(index)) == 4
    training = SpeechDataset(index, training=True)
    assert [u.text for u in training.utterances] == ["a cat sat on the mat"]
    assert "'5'" in training.skipped["a1-ann-b"]
    assert "empty" in training.skipped["a2-bob-b"]
    assert "no transcript" in training.skipped["a4-bob-b"]
    with pytest.raises(ValueError, match="no usable utterance"):
        SpeechDataset(index, training=True, max_duration=0.2)


def test_one_id_under_two_endings_is_one_utterance_and_a_named_rest(librispeech_dir):
    first = librispeech_dir / "train" / "11" / "7" / "11-7-0000.flac"
    soundfile.write(first.with_suffix(".wav"), tone(440, 1.0), 16_000)
    index = librispeech_index(librispeech_dir, ["train"])
    assert [u.id for u in index.utterances].count(first.stem) == 1
    assert "same id" in index.skipped[str(first.with_suffix(".wav"))]


def test_a_part_named_twice_is_refused(librispeech_dir):
    with pytest.raises(ValueError, match="twice"):
        librispeech_index(librispeech_dir, ["train", "train"])


def test_an_utterance_of_two_parts_is_read_once_and_named(librispeech_dir):
    """As those of train-clean-5 are in train-clean-100, too."""
    shutil.copytree(librispeech_dir / "train" / "11", librispeech_dir / "dev" / "11")
    index = librispeech_index(librispeech_dir, ["train", "dev"])
    assert len(index.utterances) == len({u.id for u in index.utterances}) == 8
    again = librispeech_dir / "dev" / "11" / "7" / "11-7-0000.flac"
    assert len(index.skipped) == 3
    assert "same id" in index.skipped[str(again)] and "train" in index.skipped[str(again)]


def test_transcripts_end_at_line_ends_alone_and_what_is_not_utf_8_is_left_out(librispeech_dir):
    chapter = librispeech_dir / "train" / "11" / "7"
    content = "11-7-0000 HE SAID\u2028YES\n11-7-0001 ".encode() + b"DON\x92T\n11-7-0002 CAF\xe9\n"
    (chapter / "11-7.trans.txt").write_bytes(content)
    soundfile.write(os.fsencode(chapter) + b"/caf\xe9.wav", tone(440, 0.5), 16_000)
    index = librispeech_index(librispeech_dir, ["train"])  # and its names can be written
    assert index.utterances[0].text == "HE SAID\u2028YES"
    assert sorted(index.skipped) == [str(chapter / "caf\ufffd.wav")]
    train = LibriSpeechDataset(librispeech_dir, ["train"], training=True)
    assert [u.id for u in train.utterances][:2] == ["11-7-0000", "12-7-0003"]
    assert train.utterances[0].text == "he said yes"


@pytest.mark.parametrize("content", ["", "{not json", None])
def test_a_cache_that_cannot_be_read_is_made_anew(custom_dir, tmp_path, monkeypatch, content):
    monkeypatch.setenv("ASRLIB_CACHE", str(tmp_path / "cache"))
    before = custom_dir_index(custom_dir)
    (cached,) = (tmp_path / "cache" / "index").iterdir()
    if content is None:
        cached.unlink()
        cached.mkdir()
    else:
        cached.write_text(content)
    assert custom_dir_index(custom_dir) == before


def test_a_text_without_its_recording_is_named(custom_dir):
    (custom_dir / "transcriptions" / "lost.txt").write_text("where is it")
    assert "no such recording" in custom_dir_index(custom_dir).skipped["lost"]
