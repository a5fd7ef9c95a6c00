"""The search by attention and CTC finds what trying every text finds, and always ends."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrlib.decoding.attention import AttentionDecoder
from asrlib.decoding.attention_search import LABELS_PER_FRAME, STALL
from asrlib.decoding.ctc_prefix import CTCPrefixScorer
from asrlib.model.las import EOS, SIZES, Speller
from asrlib.text import BLANK, CTCTextEncoder, collapse
from tests.corpus import made_by_hand

ABC = CTCTextEncoder("ab ")
V, D = len(ABC), 6


SEED = 2  # of an untrained speller that writes some labels, and ends by itself


def new_speller(vocabulary=V, seed=0, scale=3.0):
    """Untrained, with weights so large that it has opinions."""
    torch.manual_seed(seed)
    speller = Speller(D, vocabulary, SIZES["xxs"], dropout=0.5, sampling=0.5).eval()
    with torch.no_grad():
        for parameter in speller.parameters():
            parameter.mul_(scale)
    return speller


def new_output(frames, vocabulary=V, seed=0):
    """(log_probs, lengths, encoded) of random utterances; beyond a length stands what must not matter."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(frames), max(frames)
    logits = 2 * torch.randn(*shape, vocabulary, generator=generator)
    encoded = torch.randn(*shape, D, generator=generator)
    return logits.log_softmax(-1), torch.tensor(frames), encoded


def texts(labels, longest):
    for length in range(longest + 1):
        yield from itertools.product(labels, repeat=length)


# --- CTC's prefix scores


def ctc_sums(log_probs):
    """{labels: probability} of one utterance [T', V], from every path."""
    sums = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        p = math.exp(sum(float(log_probs[t, label]) for t, label in enumerate(path)))
        labels = tuple(collapse(path)[0])
        sums[labels] = sums.get(labels, 0.0) + p
    return sums


def log(p):
    return math.log(p) if p > 0 else -math.inf


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 99))
def test_prefix_scores_are_sums_over_all_paths_that_begin_so(frames, seed):
    log_probs, lengths, _ = new_output(frames, vocabulary=3, seed=seed)
    scorer = CTCPrefixScorer(log_probs, lengths)
    labels = torch.tensor([1, 2])
    sums = [ctc_sums(row[:length]) for row, length in zip(log_probs, frames, strict=True)]
    for prefix in texts([1, 2], 3):
        state, last = scorer.start(1), torch.full((len(frames), 1), BLANK)
        for label in prefix:
            new = torch.full_like(last, label)
            state, last = scorer.extend(state, last, new), new
        whole = scorer.whole(state)
        extended = scorer.extended(state, last, labels.expand(len(frames), 1, 2))
        for b, known in enumerate(sums):
            assert float(whole[b, 0]) == pytest.approx(log(known.get(prefix, 0.0)), abs=1e-6)
            for place, label in enumerate((1, 2)):
                longer = (*prefix, label)
                p = sum(p for text, p in known.items() if text[: len(longer)] == longer)
                assert float(extended[b, 0, place]) == pytest.approx(log(p), abs=1e-6)


def test_prefix_scores_of_a_long_utterance_are_those_of_a_loop_over_frames():
    """Where sums of logarithms are in the thousands; frames are as sure as trained ones."""
    torch.manual_seed(0)
    log_probs = (20 * torch.randn(1, 1500, 5)).log_softmax(-1).double()
    scorer = CTCPrefixScorer(log_probs, torch.tensor([1500]))
    state, last = scorer.start(1), torch.tensor([[BLANK]])
    before = last.item()
    in_label = [-math.inf] * 1501
    in_blank = scorer.start(1)[0, 0, 1].tolist()
    for label in [3, 1, 1, 4, 2]:
        new = torch.tensor([[label]])
        state, last = scorer.extend(state, last, new), new
        entering = [
            blank if label == before else np.logaddexp(own, blank)
            for own, blank in zip(in_label, in_blank, strict=True)
        ]
        in_label, in_blank = [-math.inf], [-math.inf]
        for t, p in enumerate(log_probs[0].tolist()):
            both = np.logaddexp(in_label[t], in_blank[t])
            in_label.append(p[label] + np.logaddexp(in_label[t], entering[t]))
            in_blank.append(p[BLANK] + both)
        before = label
        found = state[0, 0].clamp(min=-1e9)
        expected = torch.tensor([in_label, in_blank]).double().clamp(min=-1e9)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


# --- the search against every text


def attention_score(speller, encoded, text):
    """ln p of the labels and the end by teacher forcing, and how many frames were covered."""
    out = speller(encoded[None], torch.tensor([len(encoded)]), torch.tensor([text]).long())
    log_probs = out["attention_logits"][0].double().log_softmax(-1)
    score = sum(float(log_probs[i, label]) for i, label in enumerate([*text, EOS]))
    return score, int((out["attention"][0].sum(0) > 0.5).sum())


def ctc_score(log_probs, text):
    return log(ctc_sums(log_probs).get(tuple(text), 0.0))


def wide(speller, **options):
    """A beam in which every text has room."""
    return AttentionDecoder(ABC, speller, beam_width=400, **options)


@torch.no_grad()
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("coverage", [0.0, 0.7])
def test_a_wide_beam_ranks_texts_as_trying_them_all_does(weight, coverage):
    frames, speller = [2, 3], new_speller()
    log_probs, lengths, encoded = new_output(frames)
    decoder = wide(speller, ctc_weight=weight, coverage=coverage)
    found = decoder.nbest(log_probs, lengths, encoded, 12)
    for b, length in enumerate(frames):
        scored = []
        for text in texts([1, 2, 3], 4):
            spelled, covered = attention_score(speller, encoded[b, :length], text)
            ctc = ctc_score(log_probs[b, :length], text) if weight else 0.0
            scored.append(((1 - weight) * spelled + weight * ctc + coverage * covered, text))
        scored = sorted(((s, t) for s, t in scored if s > -math.inf), reverse=True)
        for hypothesis, (score, text) in zip(found[b][:8], scored, strict=False):
            assert tuple(hypothesis.tokens) == text
            assert hypothesis.score == pytest.approx(score, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("weight", [0, 0.3])
def test_what_is_certain_of_the_blank_is_silent_whatever_the_speller_would_write(weight):
    log_probs, lengths, encoded = new_output([9, 9, 5], seed=SEED)
    certain = torch.full((V,), -1e4).index_fill(0, torch.tensor(BLANK), 0.0)
    log_probs[0], log_probs[2, :5] = certain, certain
    decoder = AttentionDecoder(ABC, new_speller(seed=SEED), 2, ctc_weight=weight)
    found = decoder(log_probs, lengths, encoded)
    assert [hypothesis.tokens for hypothesis in found[::2]] == [[], []]
    assert found[1].tokens


@torch.no_grad()
def test_greedy_takes_the_best_label_until_that_is_the_end():
    speller = new_speller(seed=SEED)
    log_probs, lengths, encoded = new_output([9], seed=SEED)
    (hypothesis,) = AttentionDecoder(ABC, speller, 1, ctc_weight=0)(log_probs, lengths, encoded)
    memory, expected = speller.remember(encoded, lengths), []
    state, label = speller.start(memory), torch.tensor([[EOS]])
    while len(expected) <= len(hypothesis.tokens):
        logits, state = speller.step(label, memory, state)
        label = logits.argmax(-1)
        expected.append(label.item())
    assert hypothesis.tokens and expected == [*hypothesis.tokens, EOS]
    assert hypothesis.text == ABC.decode(hypothesis.tokens)


@torch.no_grad()
@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 7), min_size=2, max_size=4), st.integers(0, 99))
def test_a_batch_is_decoded_as_its_utterances_are_alone(frames, seed):
    if not any(frames):
        frames = [1, *frames]
    log_probs, lengths, encoded = new_output(frames, seed=seed)
    for weight in (0, 0.4):
        decoder = AttentionDecoder(ABC, new_speller(seed=seed), 3, ctc_weight=weight)
        together = decoder.nbest(log_probs, lengths, encoded)
        for b, length in enumerate(frames):
            row = slice(b, b + 1)
            (alone,) = decoder.nbest(log_probs[row, :length], lengths[row], encoded[row, :length])
            assert [h.tokens for h in together[b]] == [h.tokens for h in alone]
            assert [h.frames for h in together[b]] == [h.frames for h in alone]
            for a, b_ in zip(together[b], alone, strict=True):
                assert a.score == pytest.approx(b_.score, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("weight", [0, 0.3, 1])
def test_the_n_best_differ_and_are_sorted_and_the_first_is_what_calling_gives(weight):
    speller, output = new_speller(seed=5), new_output([6, 4], seed=5)
    decoder = AttentionDecoder(ABC, speller, 5, ctc_weight=weight)
    for hypotheses, (first,) in zip(decoder.nbest(*output), decoder.nbest(*output, 1), strict=True):
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(h.tokens) for h in hypotheses}) == len(hypotheses) <= 5
        assert first.score >= scores[0] - 1e-6


# --- the end


@torch.no_grad()
@pytest.mark.parametrize("weight", [0, 0.3, 1])
@pytest.mark.parametrize("width", [1, 4])
def test_decoding_an_untrained_model_ends(weight, width):
    for encoder, scale in ((ABC, 1.0), (ABC, 5.0), (made_by_hand(), 1.0)):
        speller = new_speller(len(encoder), scale=scale)
        speller.head.bias[EOS] = -1e4  # it never wants to end
        log_probs, lengths, encoded = new_output([60, 1, 0, 33], len(encoder))
        decoder = AttentionDecoder(encoder, speller, width, ctc_weight=weight)
        for hypothesis, frames in zip(
            decoder(log_probs, lengths, encoded), lengths.tolist(), strict=True
        ):
            assert len(hypothesis.tokens) <= LABELS_PER_FRAME * frames
            assert len(hypothesis.frames) == len(hypothesis.tokens)
            assert hypothesis.frames == sorted(hypothesis.frames)
            assert all(0 <= frame < frames for frame in hypothesis.frames)


class Fixed(Speller):
    """Looks where ``places`` say, for one label after the other, then at the last of them."""

    places = (0, 1, 2, 3, 4)

    def _attend(self, query, memory, past):
        written = past[:, :, 1].sum(-1).round().long().clamp(max=len(self.places) - 1)
        return torch.nn.functional.one_hot(
            torch.tensor(self.places)[written], past.shape[-1]
        ).float()


@torch.no_grad()
@pytest.mark.parametrize(
    ("places", "heard"),
    [
        ([0, 1, 2, 3, 4], 6),  # then it stares: a second look at the end counts, no third
        ([0, 1, 2, 3, 4] * 20, 5),  # reads again
        ([0, 49, *range(1, 40)], 42),  # a slip is not the end
    ],
)
def test_by_attention_alone_a_text_is_over_where_attention_goes_no_further(places, heard):
    speller = Fixed(D, V, SIZES["xxs"], 0.0, 0.0).eval()
    speller.places = tuple(places)
    speller.head.bias[EOS] = -1e4
    log_probs, lengths, encoded = new_output([50])
    (hypothesis,) = AttentionDecoder(ABC, speller, 1, ctc_weight=0)(log_probs, lengths, encoded)
    assert len(hypothesis.tokens) == heard  # the STALL labels that followed are gone
    assert heard + STALL < LABELS_PER_FRAME * 50
    assert hypothesis.frames == np.maximum.accumulate([*places, places[-1]][:heard]).tolist()


@torch.no_grad()
def test_coverage_prefers_the_text_that_leaves_no_speech_out():
    speller = Fixed(D, V, SIZES["xxs"], 0.0, 0.0).eval()
    for parameter in speller.parameters():
        parameter.zero_()
    speller.head.bias[EOS] = 0.5  # each step a little likelier to end than to go on
    output = new_output([50])
    short, whole = (
        AttentionDecoder(ABC, speller, 4, ctc_weight=0, coverage=c)(*output)[0] for c in (0.0, 3.0)
    )
    assert short.tokens == []
    assert len(whole.tokens) >= len(Fixed.places) - 1


def test_nan_and_other_labels_are_errors_but_not_beyond_a_length():
    decoder = AttentionDecoder(ABC, new_speller(), 2)
    log_probs, lengths, encoded = new_output([4, 2])
    before = decoder(log_probs, lengths, encoded)
    log_probs[1, 2:] = math.nan
    assert decoder(log_probs, lengths, encoded) == before
    log_probs[1, 1] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        decoder(log_probs, lengths, encoded)
    with pytest.raises(ValueError, match="3 labels, expected 4"):
        decoder(log_probs[..., :3], lengths, encoded)


@pytest.mark.parametrize("wrong", [{"beam_width": 0}, {"ctc_weight": 1.1}, {"coverage": -1}])
def test_an_option_out_of_its_range_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AttentionDecoder(ABC, new_speller(), **wrong)


def test_tokens_are_dated_by_ctc_where_it_has_a_say():
    labels = [0, 1, 0, 0, 2, 0]
    log_probs = torch.full((1, 6, V), -20.0)
    log_probs[0, range(6), labels] = 0.0
    decoder = AttentionDecoder(ABC, new_speller(scale=0.1), 4, ctc_weight=0.5)
    encoded = torch.zeros(1, 6, D)
    (hypothesis,) = decoder(log_probs.log_softmax(-1), torch.tensor([6]), encoded)
    assert (hypothesis.text, hypothesis.frames) == ("ab", [1, 4])


# --- a language model


ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-99\t<s>\t0
-0.7\t</s>
-3\t<unk>\t0
-0.9\ta\t-0.3
-1.1\tab\t-0.2

\\2-grams:
-0.2\t<s> ab
-0.4\tab a

\\end\\
"""
N = {("<s>", "ab"): -0.2, ("ab", "a"): -0.4}  # the bigrams; other words back off
UNIGRAMS, BACKOFF = {"a": -0.9, "ab": -1.1, "</s>": -0.7}, {"a": -0.3, "ab": -0.2}


def lm_score(text, alpha, beta, offset):
    """What the formula says of the words of ``text``."""
    score, before = 0.0, "<s>"
    words = text.split()
    for word in [*words, "</s>"]:
        known = word in UNIGRAMS
        p = N.get((before, word))
        if p is None:
            p = BACKOFF.get(before, 0.0) + UNIGRAMS.get(word, -3.0)
        score += alpha * math.log(10) * (p + (0.0 if known else offset))
        before = word
    return score + beta * len(words)


@pytest.fixture(scope="module")
def lm_path(tmp_path_factory):
    pytest.importorskip("kenlm")
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    path.write_text(ARPA)
    return path


@pytest.mark.parametrize("encoder", [CTCTextEncoder("abhgint "), made_by_hand()])
def test_words_end_where_labels_say_so_whatever_writes_them(lm_path, encoder):
    from asrlib.decoding.word_fusion import WordFusion

    weights = 0.6, 1.2, -4.0
    fusion = WordFusion(encoder, lm_path, *weights)
    for text in ("", "ab", "ab a", "a ab ab thing", "bat a"):
        writing, score = fusion.start(), 0.0
        for label in encoder.encode(text):
            if fusion.ends_word[label]:
                score += fusion.closing(writing).score
            writing = fusion.write(writing, label)
        closing = fusion.closing(writing)
        found = score + closing.score + closing.end
        assert found == pytest.approx(lm_score(text, *weights), abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("weight", [0, 0.4])
@pytest.mark.parametrize("weights", [(0.6, 1.2, -4.0), (1.5, -0.5, -1.0)])
def test_words_are_scored_by_the_language_model_where_they_end(lm_path, weight, weights):
    speller = new_speller(seed=7)
    log_probs, lengths, encoded = new_output([3], seed=7)
    names = ("alpha", "beta", "unk_score_offset")
    decoder = wide(speller, ctc_weight=weight, lm_path=lm_path)
    for name, value in zip(names, weights, strict=True):  # as tuning sets them
        setattr(decoder, name, value)
    found = decoder.nbest(log_probs, lengths, encoded, 20)[0]
    scored = []
    for text in texts([1, 2, 3], 4):
        ctc = ctc_score(log_probs[0], text) if weight else 0.0
        spelled = attention_score(speller, encoded[0], text)[0]
        score = (1 - weight) * spelled + weight * ctc + lm_score(ABC.decode(text), *weights)
        scored.append((score, text))
    scored = sorted((x for x in scored if x[0] > -math.inf), reverse=True)
    for hypothesis, (score, text) in zip(found[:5], scored, strict=False):
        assert tuple(hypothesis.tokens) == text
        assert hypothesis.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("encoder", [CTCTextEncoder("abhgint "), made_by_hand()])
def test_an_unfinished_word_counts_as_the_most_frequent_that_begins_so(lm_path, encoder):
    from asrlib.decoding.word_fusion import WordFusion

    alpha, beta, offset = 0.6, 1.2, -4.0
    fusion = WordFusion(encoder, lm_path, alpha, beta, offset)
    words = {word: p for word, p in UNIGRAMS.items() if word != "</s>"}
    for text in ("ab", "ab a", "a ab ab thing", "bat a"):
        writing, spelled = fusion.start(), []
        for label in encoder.encode(text):
            spelled.append(label)
            word = encoder.decode(spelled).split(" ")[-1] if not fusion.ends_word[label] else None
            found = fusion.ahead(writing, label)
            writing = fusion.write(writing, label)
            if word is not None:
                known = [p for w, p in words.items() if w.startswith(word)]
                p = max(known) if known else min(-3.0, *words.values()) + offset
                assert found == pytest.approx(alpha * math.log(10) * p + beta, abs=1e-5)


@torch.no_grad()
def test_a_narrow_beam_finds_better_texts_with_its_look_ahead(lm_path, monkeypatch):
    from asrlib.decoding.word_fusion import WordFusion

    def scores():
        decoder = AttentionDecoder(ABC, speller, 2, ctc_weight=0.4, lm_path=lm_path, alpha=2.0)
        return torch.tensor([h.score for h in decoder(*new_output([12] * 40, seed=9))])

    speller = new_speller(seed=9)
    with_it = scores()
    monkeypatch.setattr(WordFusion, "ahead", lambda *_: 0.0)
    assert (with_it > scores() + 0.1).sum() > 2 * (with_it < scores() - 0.1).sum()
