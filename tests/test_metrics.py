"""Error rates are the corpus's, counted as by hand; intervals resample speakers."""

import math
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrlib.files import speaker_of
from asrlib.metrics import Edits, ErrorRate, score_utterance, wer_interval

words = st.lists(st.sampled_from(["a", "b", "c'd", "e"]), max_size=7)


def distance(one, other):
    """Levenshtein's distance, by its recursive definition."""

    @cache
    def between(i, j):
        if i == 0 or j == 0:
            return i + j
        change = between(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(change, between(i - 1, j) + 1, between(i, j - 1) + 1)

    return between(len(one), len(other))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("a cat sat", "a cat sat", Edits(0, 0, 0, 3)),
        ("a cat sat", "a bat sat", Edits(1, 0, 0, 3)),
        ("a cat sat", "a cat", Edits(0, 1, 0, 3)),
        ("a cat sat", "oh a cat sat", Edits(0, 0, 1, 3)),
        ("a cat sat down", "the cat sat", Edits(1, 1, 0, 4)),
        ("a cat", "", Edits(0, 2, 0, 2)),
        ("", "a cat", Edits(0, 0, 2, 0)),
        ("", "", Edits(0, 0, 0, 0)),
        ("Well-known!", "WELL KNOWN", Edits(0, 0, 0, 2)),
        ("don't", "dont", Edits(1, 0, 0, 1)),
    ],
)
def test_edits_are_those_counted_by_hand(reference, hypothesis, expected):
    assert score_utterance(reference, hypothesis).words == expected


def test_character_edits_are_those_counted_by_hand():
    assert score_utterance("don't", "dont").characters == Edits(0, 1, 0, 5)
    assert score_utterance("a cat", "acat").characters == Edits(0, 1, 0, 5)  # a space counts
    assert score_utterance("", "ab").characters == Edits(0, 0, 2, 0)


@given(words, words)
def test_edits_sum_to_the_distance(reference, hypothesis):
    scored = score_utterance(" ".join(reference), " ".join(hypothesis))
    for edits, one, other in [
        (scored.words, reference, hypothesis),
        (scored.characters, scored.reference, scored.hypothesis),
    ]:
        assert edits.total == distance(one, other)
        assert edits.reference == len(one)
        assert edits.insertions - edits.deletions == len(other) - len(one)


def test_the_rate_is_of_the_corpus_not_a_mean_of_utterances():
    rate = ErrorRate()
    rate.add("no", "yes")
    rate.add(
        "one two three four five six seven eight nine",
        "one two three four five six seven eight nine",
    )
    assert rate.wer == 10.0  # the mean of 100 and 0 is 50
    assert rate.cer == pytest.approx(100 * 3 / (2 + 44))


def test_an_empty_reference_adds_insertions_and_no_words():
    rate = ErrorRate()
    rate.add("a cat", "a cat")
    rate.add("...", "uh oh oh")
    assert rate.wer == 150.0


def test_a_corpus_without_words_has_no_rate():
    rate = ErrorRate()
    assert math.isnan(rate.wer)
    rate.add("", "a")
    assert math.isnan(rate.wer)
    assert math.isnan(rate.cer)


@pytest.mark.parametrize("apostrophe", ["'", "’", "‘", "′", "`"])
@pytest.mark.parametrize("swap", [False, True])
def test_apostrophes_are_treated_alike_on_both_sides(apostrophe, swap):
    pair = (f"I DON{apostrophe}T.", "i don't")
    scored = score_utterance(*(reversed(pair) if swap else pair))
    assert scored.words == Edits(0, 0, 0, 2)
    assert scored.characters.total == 0


def test_the_dictionary_holds_every_count():
    rate = ErrorRate()
    rate.add("a cat sat down", "the cat sat")
    assert rate.as_dict() == {
        "wer": 50.0,
        "cer": pytest.approx(100 * 8 / 14),
        "words": 4,
        "substitutions": 1,
        "deletions": 1,
        "insertions": 0,
        "utterances": 1,
    }


def _scored(errors_by_speaker, utterances=5):
    return [
        score_utterance("a b c d", " ".join("xxxx"[:errors] + "abcd"[errors:]), f"{s}-{i}", s)
        for s, errors in errors_by_speaker.items()
        for i in range(utterances)
    ]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=20, max_size=30))
def test_the_interval_holds_the_rate_of_the_sample(errors):
    scored = _scored({f"s{i}": e for i, e in enumerate(errors)}, utterances=2)
    low, high = wer_interval(scored, replicates=1_000)
    assert low <= ErrorRate(scored).wer <= high


def test_the_interval_resamples_speakers_not_utterances():
    scored = _scored({"perfect": 0, "hopeless": 4}, utterances=200)
    assert ErrorRate(scored).wer == 50.0
    assert wer_interval(scored) == (0.0, 100.0)  # 400 utterances alone would give about 45–55


def test_utterances_without_a_speaker_stand_for_themselves():
    scored = [score_utterance("a b", h, f"u{i}") for i, h in enumerate(["a b", "x y"] * 100)]
    low, high = wer_interval(scored)
    assert 40 < low < 50 < high < 60


def test_the_interval_is_repeatable_and_widens_with_confidence():
    scored = _scored({f"s{i}": i % 5 for i in range(20)})
    assert wer_interval(scored) == wer_interval(list(reversed(scored)))
    low, high = wer_interval(scored)
    wider = wer_interval(scored, confidence=0.99)
    assert wider[0] < low < high < wider[1]


def test_a_speaker_is_found_in_an_id_or_the_pattern_is_refused():
    assert speaker_of("an1-ann-b", "-(.+)-") == "ann"
    assert speaker_of("other", "-(.+)-") is None and speaker_of("a", None) is None
    for pattern in (r"an\d", "("):
        with pytest.raises(ValueError, match="speaker_pattern"):
            speaker_of("an1", pattern)


def test_one_speaker_has_no_interval():
    with pytest.raises(ValueError, match="at least two speakers"):
        wer_interval(_scored({"alone": 1}))


def test_no_reference_words_have_no_interval_whoever_spoke():
    errors = ErrorRate()
    for speaker in "ab":
        errors.add("", "x", speaker, speaker)
    with pytest.raises(ValueError, match="reference words, and there are none"):
        wer_interval(errors.utterances)
