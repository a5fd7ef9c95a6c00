"""The demonstration corpus: its text, its voices, its audio and its folder."""

import json
import re
from collections import Counter

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("espeakng_loader")

from asrlib.data.demo import (
    SAMPLE_RATE,
    Spoken,
    Voice,
    ensure_demo_corpus,
    main,
    plan,
    statistics,
    synthesise,
    voices,
)
from asrlib.data.demo_text import MOST_WORDS, sentences, transcript, vocabulary
from asrlib.data.espeak import speak

TINY = {"test": 25, "dev": 10, "train": 40}
SENTENCE = "The doctor's sister didn't want to go."
# one with a wavering pitch, one with noise, one with an echo: what espeak-ng remembers
VOICES = [
    Voice(1, "en-us", "m1", 170, 50),
    Voice(2, "en-gb", "Reed", 150, 40),
    Voice(3, "en-029", "f2", 190, 60),
]


@pytest.fixture(scope="module")
def whole_plan():
    return plan(seed=0)


@pytest.fixture(scope="module")
def tiny_corpus(tmp_path_factory):
    return ensure_demo_corpus(tmp_path_factory.mktemp("demo") / "corpus", seed=3, words=TINY)


def _contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def _text_statistics(lines):
    return statistics(
        {
            split: [
                Spoken(x.voice.speaker, x.voice.timbre, transcript(x.sentence), 1.0) for x in part
            ]
            for split, part in lines.items()
        }
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), split=st.sampled_from(["train", "dev", "test"]))
def test_sentences_are_well_formed_and_repeatable(seed, split):
    made = sentences(seed, split, 200)
    assert made == sentences(seed, split, 200)
    texts = [transcript(sentence) for sentence in made]
    assert len(set(texts)) == len(texts)
    assert sum(len(text.split()) for text in texts) >= 200
    for sentence, text in zip(made, texts, strict=True):
        assert re.fullmatch(r"[A-Z][A-Za-z', ]*[.?]( [A-Z][A-Za-z', ]*[.?])?", sentence)
        assert re.fullmatch(r"[A-Z']+( [A-Z']+)*", text)
        assert 4 <= len(text.split()) <= MOST_WORDS
        assert set(text.split()) <= vocabulary()
        assert not re.search(r"\bA [AEIOU]|\bAN [^AEIOU]", text)


def test_sentences_to_keep_out_are_kept_out():
    first = [transcript(sentence) for sentence in sentences(0, "train", 300)]
    again = [transcript(sentence) for sentence in sentences(0, "train", 300, without=first)]
    assert not set(first) & set(again)


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_plan_keeps_the_splits_apart(seed):
    lines = plan(seed)
    assert lines == plan(seed)
    table = _text_statistics(lines)
    assert table["test"]["train_sentences"] == table["test"]["train_timbres"] == 0
    assert table["test"]["unseen_bigrams_percent"] >= 25
    assert table["test"]["word_types"] >= 500
    texts = Counter(transcript(x.sentence) for part in lines.values() for x in part)
    assert max(texts.values()) == 1
    ids = Counter(x.id for part in lines.values() for x in part)
    assert max(ids.values()) == 1


def test_every_word_is_trained(whole_plan):
    counts = Counter(w for x in whole_plan["train"] for w in transcript(x.sentence).split())
    assert set(counts) == vocabulary()
    assert min(counts.values()) >= 4
    assert 620 <= len(counts) <= 720
    assert {"DON'T", "IT'S", "DOCTOR'S"} <= set(counts)


def test_voices_of_the_splits_are_disjoint():
    split_voices = {split: voices(0, split) for split in ("train", "dev", "test")}
    assert [len(part) for part in split_voices.values()] == [54, 6, 14]
    for field in ("speaker", "timbre"):
        sets = [{getattr(v, field) for v in part} for part in split_voices.values()]
        assert sum(map(len, sets)) == len(set.union(*sets))
    assert {v.accent for v in split_voices["test"]} <= {v.accent for v in split_voices["train"]}


def test_statistics_of_a_small_example():
    train = [Spoken(1, "m1", "THE DOG RAN", 2.0), Spoken(2, "m2", "THE CAT SLEPT", 4.0)]
    test = [Spoken(3, "m1", "THE DOG SLEPT", 3.0), Spoken(3, "m3", "THE CAT SLEPT", 1.0)]
    table = statistics({"train": train, "test": test})
    assert table["train"] == {
        "utterances": 2,
        "minutes": 0.1,
        "voices": 2,
        "words": 6,
        "word_types": 5,
        "shortest": 2.0,
        "median": 3.0,
        "longest": 4.0,
    }
    assert table["test"]["voices"] == 1
    assert table["test"]["unseen_bigrams_percent"] == 25.0  # DOG SLEPT of four
    assert table["test"]["train_sentences"] == 1
    assert table["test"]["train_timbres"] == 1


def test_speech_depends_on_voice_and_text_alone():
    first = [synthesise(voice, SENTENCE) for voice in VOICES]
    synthesise(VOICES[0], "Something else.")
    second = [synthesise(voice, SENTENCE) for voice in reversed(VOICES)][::-1]
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
    assert len({samples.tobytes() for samples in first}) == len(VOICES)


def test_every_voice_speaks_clearly_and_does_not_clip():
    for split in ("train", "dev", "test"):
        for voice in voices(0, split):
            samples = synthesise(voice, SENTENCE)
            assert samples.dtype == np.int16
            assert 1.0 < len(samples) / SAMPLE_RATE < 4.0, voice
            assert 3000 < np.abs(samples.astype(int)).max() < 32000, voice


def test_no_two_timbres_are_the_same():
    timbres = {voice.timbre for split in ("train", "dev", "test") for voice in voices(0, split)}
    spoken = {synthesise(Voice(1, "en-us", name, 170, 50), SENTENCE).tobytes() for name in timbres}
    assert len(spoken) == len(timbres)


def test_an_unknown_timbre_is_an_error():
    with pytest.raises(ValueError, match="no voice variant 'no-such'"):
        synthesise(Voice(1, "en-us", "no-such", 170, 50), SENTENCE)


def test_speech_that_fails_is_an_error(capfd):
    with pytest.raises(RuntimeError, match="gave no speech"):
        speak("no-such-accent", "m1", 170, 50, SENTENCE)


def test_the_folder_has_librispeechs_layout(tiny_corpus):
    flacs = sorted(tiny_corpus.glob("*/*/*/*.flac"))
    spoken = {}
    for path in tiny_corpus.glob("*/*/*/*.trans.txt"):
        speaker, chapter = path.parts[-3:-1]
        assert path.name == f"{speaker}-{chapter}.trans.txt"
        for row in path.read_text().splitlines():
            name, text = row.split(" ", 1)
            assert re.fullmatch(rf"{speaker}-{chapter}-\d{{4}}", name)
            assert re.fullmatch(r"[A-Z' ]+", text)
            spoken[name] = text
    assert sorted(spoken) == sorted(path.stem for path in flacs)
    for path in flacs:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
        assert np.abs(soundfile.read(path)[0]).max() > 0.05
    rows = (tiny_corpus / "SPEAKERS.TXT").read_text().splitlines()
    speakers = {row.split("|")[0].strip() for row in rows if not row.startswith(";")}
    assert speakers == {path.parts[-3] for path in flacs}


def test_the_same_seed_gives_the_same_bytes(tiny_corpus, tmp_path):
    again = ensure_demo_corpus(tmp_path / "again", seed=3, words=TINY)
    assert _contents(again) == _contents(tiny_corpus)


def test_a_made_corpus_is_left_as_it_is(tiny_corpus):
    stamp = tiny_corpus / "demo.json"
    before = stamp.stat().st_mtime_ns
    assert ensure_demo_corpus(tiny_corpus, seed=3, words=TINY) == tiny_corpus
    assert stamp.stat().st_mtime_ns == before


def test_another_corpus_is_not_overwritten(tiny_corpus, tmp_path):
    with pytest.raises(FileExistsError, match=f"remove the folder {tiny_corpus}"):
        ensure_demo_corpus(tiny_corpus, seed=4, words=TINY)
    with pytest.raises(FileExistsError, match="remove the folder"):
        ensure_demo_corpus(tmp_path)


@pytest.mark.slow
def test_the_whole_corpus(tmp_path, capsys):
    main(["--root", str(tmp_path / "demo")])
    assert "unseen_bigrams_percent" in capsys.readouterr().out
    table = json.loads((tmp_path / "demo" / "demo.json").read_text())["statistics"]
    assert 45 <= table["train"]["minutes"] <= 60
    assert 3 <= table["dev"]["minutes"] <= 5
    assert 11 <= table["test"]["minutes"] <= 13
    for split in table.values():
        assert 1.0 <= split["shortest"] < 3.0 < split["median"] < 9.0 < split["longest"] <= 15.0
