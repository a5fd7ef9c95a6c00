"""One normaliser, idempotent and within its alphabet; an encoder that loses nothing; CTC's collapse."""

import json
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrlib.text import (
    ALPHABET,
    BLANK,
    CTCTextEncoder,
    collapse,
    from_dict,
    normalize,
    unspoken,
)

normalized = st.text(ALPHABET, max_size=30)


@given(st.text())
def test_normalising_twice_changes_nothing_more(text):
    once = normalize(text)
    assert normalize(once) == once


@given(st.text() | st.text("aZé’' \t-ßΩ5"))
def test_normalised_text_is_words_of_the_alphabet_between_single_spaces(text):
    result = normalize(text)
    assert set(result) <= set(ALPHABET)
    assert result == " ".join(result.split())


@given(normalized)
def test_normalised_text_is_kept_and_has_nothing_unspoken(text):
    assert unspoken(text) == ""
    assert normalize(text).split() == [word for word in text.split() if word.strip("'")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DON'T STOP", "don't stop"),
        ("don’t ‘tis dogs′", "don't 'tis dogs'"),
        ("it`s, it´s", "it's it's"),
        ("' rock 'n' roll ''", "rock 'n' roll"),
        ("Café NAÏVE Ångström", "cafe naive angstrom"),
        ("Cafe\u0301", "cafe"),
        (
            "Straße STRAẞE Æsop œuvre Øre ǿ ǣ łódź İIı",
            "strasse strasse aesop oeuvre ore o ae lodz iii",
        ),
        ("ﬁne ＡＢＣ ℌat", "fine abc hat"),
        ("well-known—isn't  it?\n", "well known isn't it"),
        ("... !?", ""),
        ("", ""),
    ],
)
def test_the_written_form_is_as_documented(text, expected):
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Smith's café – isn’t it?", ""),
        ("at 5 o'clock, 15%", "%15"),
        ("R&B", "&"),
        ("привет", "веипрт"),
        ("½", "12"),
    ],
)
def test_characters_whose_sound_is_unknown_are_named(text, expected):
    assert unspoken(text) == expected


@given(normalized)
def test_decoding_what_was_encoded_gives_the_text(text):
    encoder = CTCTextEncoder()
    ids = encoder.encode(text)
    assert encoder.decode(ids) == text
    assert len(ids) == len(text)
    assert BLANK not in ids
    assert all(0 < i < len(encoder) for i in ids)


def test_the_blank_is_zero_and_writes_nothing():
    encoder = CTCTextEncoder("abc")
    assert BLANK == 0
    assert len(encoder) == 4
    assert encoder.encode("cab") == [3, 1, 2]
    assert encoder.decode([0, 3, 0, 0, 1]) == "ca"


def test_a_character_outside_the_alphabet_is_named():
    with pytest.raises(ValueError, match="'É' not in the alphabet"):
        CTCTextEncoder().encode("caf" + "É")


def test_an_alphabet_with_a_repeat_is_an_error():
    with pytest.raises(ValueError, match="twice"):
        CTCTextEncoder("aba")


@given(normalized)
def test_an_encoder_comes_back_from_json(text):
    encoder = CTCTextEncoder(ALPHABET[::-1])
    again = from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert len(again) == len(encoder)
    assert again.encode(text) == encoder.encode(text)


def test_an_encoder_of_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="'morse'"):
        from_dict({"kind": "morse"})


@given(st.lists(st.integers(0, 3)))
def test_collapse_equals_its_definition(path):
    runs = [(label, list(run)) for label, run in groupby(range(len(path)), key=path.__getitem__)]
    expected = [(label, run[0]) for label, run in runs if label != BLANK]
    ids, frames = collapse(path)
    assert list(zip(ids, frames, strict=True)) == expected


@given(normalized, st.data())
def test_every_alignment_of_a_text_is_decoded_to_it(text, data):
    encoder = CTCTextEncoder()
    times, path, previous = st.integers(1, 3), [], None
    for label in encoder.encode(text):
        blanks = data.draw(st.integers(1 if label == previous else 0, 2))
        path += [BLANK] * blanks + [label] * data.draw(times)
        previous = label
    assert encoder.ctc_decode([*path, BLANK]) == text
