"""Common Voice is read as downloaded: its columns, quotes, clips, and what must not be trained on."""

import re

import pytest
import soundfile

from asrlib.data import CommonVoiceDataset, MixtureDataset
from asrlib.data import common_voice as common_voice_module
from asrlib.data.common_voice import common_voice_index
from tests.signals import pitch, tone

COLUMNS = (
    *("client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes"),
    *("age", "gender", "accents", "variant", "locale", "segment"),
)
SENTENCES = {
    "train": [
        ("ann", "The café's closed, isn't it?"),
        ("ann", '"Good-bye," said the boy.'),
        ("bob", 'An unmatched " quote'),
        ("bob", "Room 5 is free."),
        ("eve", ""),
        ("eve", "He said\u2028yes\x85twice\rnow"),  # what else ends a line for Python
    ],
    "dev": [("dan", 'Chapter 7, a quote: "'), ("dan", "")],
    "test": [("tim", "Shared sentence."), ("tom", "It's 9 o'clock.")],
}
SENTENCES["validated"] = [
    *(row for part in ("train", "dev", "test") for row in SENTENCES[part]),
    ("tim", "More by a speaker of test"),
    ("zoe", "Shared sentence."),
    ("zoe", "Something else"),
]


@pytest.fixture
def cv_dir(tmp_path):
    """``cv-corpus-VERSION/en``: clips of 0.5 s and a little more, at 32 and 48 kHz in turn."""
    root = tmp_path / "cv-corpus-22.0-2025-06-20" / "en"
    (root / "clips").mkdir(parents=True)
    numbers = {}  # of clips; those of the parts are all in validated
    for part, rows in SENTENCES.items():
        lines = ["\t".join(COLUMNS)]
        for i, (speaker, sentence) in enumerate(rows):
            own = part != "validated" or i >= 10
            number = numbers.setdefault((part, i), 100 + len(numbers)) if own else 100 + i
            name = f"common_voice_en_{number}.mp3"
            values = dict.fromkeys(COLUMNS, "") | {
                "client_id": speaker * 40,
                "path": name,
                "sentence_id": f"{number:064x}",
                "sentence": sentence,
                "up_votes": "2",
                "down_votes": "0",
                "age": "twenties",
                "gender": "female_feminine",
                "accents": "United States English,England English",
                "locale": "en",
            }
            lines.append("\t".join(values.values()))
            rate = 32_000 if number % 2 else 48_000
            seconds = 0.5 + 0.01 * (number - 100)
            samples = tone(300, seconds, rate)
            soundfile.write(root / "clips" / name, samples, rate, format="MP3")
        (root / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def list_durations(cv_dir):
    lines = ["clip\tduration[ms]"]
    for path in sorted((cv_dir / "clips").iterdir()):
        lines.append(f"{path.name}\t{500 + 10 * (int(path.stem.split('_')[-1]) - 100)}")
    (cv_dir / "clip_durations.tsv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("listed", [False, True])
def test_dev_and_test_are_read_whole_and_clips_at_any_rate(cv_dir, listed):
    if listed:
        list_durations(cv_dir)
    for part, texts in {
        "dev": ["chapter a quote", ""],
        "test": ["shared sentence", "it's o'clock"],
    }.items():
        dataset = CommonVoiceDataset(cv_dir, part)
        assert [u.text for u in dataset.utterances] == texts
        assert dataset.skipped == {}
        for i, utterance in enumerate(dataset.utterances):
            audio = dataset[0, i].audio
            assert len(audio) / 16_000 == pytest.approx(utterance.duration, abs=0.08)  # MP3 pads
            assert pitch(audio) == pytest.approx(300, abs=3)
    assert [u.id for u in dataset.utterances] == ["common_voice_en_108", "common_voice_en_109"]
    assert [u.speaker for u in dataset.utterances] == ["tim" * 40, "tom" * 40]


def test_training_says_what_it_leaves_out_and_why(cv_dir):
    dataset = CommonVoiceDataset(cv_dir, "train", training=True)
    assert [u.text for u in dataset.utterances] == [
        "the cafe's closed isn't it",
        "good bye said the boy",
        "an unmatched quote",
        "he said yes twice now",
    ]
    assert dataset.skipped_by_reason() == {
        "its text has characters whose sound is not known": 1,
        "its text is empty": 1,
    }
    (cv_dir / "clips" / "common_voice_en_100.mp3").unlink()
    (cv_dir / "clips" / "common_voice_en_101.mp3").write_text("")
    dataset = CommonVoiceDataset(cv_dir, "train", training=True)
    assert dataset.skipped_by_reason()["there is no such recording"] == 1
    assert dataset.skipped_by_reason()["empty file"] == 1


def test_validated_is_kept_apart_from_dev_and_test(cv_dir):
    assert len(CommonVoiceDataset(cv_dir, "validated")) == 13
    dataset = CommonVoiceDataset(cv_dir, "validated", training=True)
    train = CommonVoiceDataset(cv_dir, "train", training=True)
    assert [u.text for u in dataset.utterances[:-1]] == [u.text for u in train.utterances]
    assert dataset.utterances[-1].text == "something else"
    reasons = dataset.skipped_by_reason()
    assert reasons["dev or test have its client_id"] == 5
    assert reasons["dev or test have its sentence"] == 1
    assert reasons["its text is empty"] == 1  # an empty sentence is nothing that test could have


def test_listed_durations_are_taken_and_no_clip_is_opened(cv_dir, monkeypatch):
    list_durations(cv_dir)
    monkeypatch.setattr(soundfile, "SoundFile", lambda *_: pytest.fail("opened"))
    (cv_dir / "clips" / "common_voice_en_102.mp3").unlink()
    index = common_voice_index(cv_dir, "train")
    assert [u.duration for u in index.utterances] == [0.50, 0.51, 0.53, 0.54, 0.55]
    assert "no such recording" in index.skipped["common_voice_en_102"]


def test_a_clip_whose_duration_is_listed_as_0_is_looked_at(cv_dir):
    list_durations(cv_dir)
    listed = cv_dir / "clip_durations.tsv"
    listed.write_text(re.sub(r"(common_voice_en_102\.mp3)\t\S+", r"\1\t0", listed.read_text()))
    found = {u.id: u.duration for u in common_voice_index(cv_dir, "train").utterances}
    assert found["common_voice_en_102"] > 0.1


def test_without_them_the_headers_are_read_once(cv_dir, monkeypatch):
    first = common_voice_index(cv_dir, "train")
    monkeypatch.setattr(common_voice_module, "_scan", lambda *_: pytest.fail("scanned again"))
    assert common_voice_index(cv_dir, "train") == first


def test_columns_are_found_by_name_and_broken_rows_are_named(cv_dir):
    tsv = cv_dir / "other.tsv"
    tsv.write_text(
        "path\tclient_id\tsentence\tsegment\ncommon_voice_en_100.mp3\tx\tHello\t\nbroken\trow\n"
        'common_voice_en_101.mp3\tx\t"""Quoted,"" as old releases did."\t\r\n'
    )
    dataset = CommonVoiceDataset(cv_dir, "other")
    assert [u.text for u in dataset.utterances] == ["hello", "quoted as old releases did"]
    assert list(dataset.skipped) == [f"{tsv}, line 3"]
    assert dataset.skipped_by_reason() == {"not as many values as columns": 1}


def test_another_folder_or_file_is_an_error_that_says_where_to_look(cv_dir):
    with pytest.raises(FileNotFoundError, match=r"no trian.tsv.*'train'.*cv-corpus-VERSION/en"):
        common_voice_index(cv_dir, "trian")
    with pytest.raises(FileNotFoundError, match="cv-corpus-VERSION/en"):
        common_voice_index(cv_dir.parent, "train")
    (cv_dir / "train.tsv").write_text("id,text\n")
    with pytest.raises(ValueError, match=r"no column \['client_id', 'path', 'sentence'\]"):
        common_voice_index(cv_dir, "train")


def test_it_may_be_a_part_of_a_mixture(cv_dir):
    section = {"_target_": "asrlib.data.CommonVoiceDataset", "data_dir": str(cv_dir)}
    parts = {"cv": section | {"part": "train", "weight": 2}}
    dataset = MixtureDataset(parts, training=True, seed=0)
    assert len(dataset) == 8
    assert dataset.skipped_by_reason()["cv: its text is empty"] == 1
