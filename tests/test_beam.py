"""The beam decoder sums over all paths: with wide limits it is enumeration, with usual ones close."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrlib.decoding import GreedyDecoder
from asrlib.text import BLANK, CTCTextEncoder, collapse

BeamDecoder = pytest.importorskip("asrlib.decoding.beam").BeamDecoder  # needs numba

EXACT = {
    "beam_width": 2000,
    "blank_skip_threshold": 1.0,
    "token_min_logp": -math.inf,
    "beam_prune_logp": -math.inf,
}
CHARACTERS = CTCTextEncoder("ab ")


class Pieces:
    """Labels as a BPE encoder has them: a word begins with ``▁``."""

    def __init__(self, *pieces):
        self.pieces = ["", *pieces]

    def __len__(self):
        return len(self.pieces)

    def decode(self, ids):
        return " ".join("".join(self.pieces[i] for i in ids).replace("▁", " ").split())


PIECES = Pieces("▁a", "b", "▁")
ENCODERS = st.sampled_from([CHARACTERS, PIECES])


def random_log_probs(frames, labels, seed, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(frames, labels, generator=generator, dtype=torch.float64)
    return logits.log_softmax(dim=-1)


def peaked(path, labels, seed=0, height=10.0):
    """log_probs [T', V] whose best label in every frame is ``path``'s, by far."""
    noise = torch.randn(len(path), labels, generator=torch.Generator().manual_seed(seed))
    return (noise + height * torch.nn.functional.one_hot(torch.tensor(path), labels)).log_softmax(
        -1
    )


def brute_force(log_probs):
    """{labels: (ln p of all its paths, frames of its best path)} over every path through [T', V]."""
    frames, labels = log_probs.shape
    scores, best = {}, {}
    for path in itertools.product(range(labels), repeat=frames):
        score = float(sum(log_probs[t, label] for t, label in enumerate(path)))
        tokens, times = collapse(path)
        tokens = tuple(tokens)
        scores[tokens] = np.logaddexp(scores.get(tokens, -np.inf), score)
        best[tokens] = max(best.get(tokens, (-np.inf, [])), (score, times))
    return {tokens: (score, best[tokens][1]) for tokens, score in scores.items() if score > -np.inf}


def decode_one(decoder, log_probs):
    (hypothesis,) = decoder(log_probs[None], torch.tensor([len(log_probs)]))
    return hypothesis


def nbest_of_one(decoder, log_probs):
    (hypotheses,) = decoder.nbest(log_probs[None], torch.tensor([len(log_probs)]))
    return hypotheses


@settings(deadline=None, max_examples=25)
@given(ENCODERS, st.integers(0, 5), st.integers(0, 10_000))
def test_without_limits_the_beam_is_the_enumeration_of_all_paths(encoder, frames, seed):
    log_probs = random_log_probs(frames, len(encoder), seed)
    expected = brute_force(log_probs.numpy())
    found = nbest_of_one(BeamDecoder(encoder, **EXACT), log_probs)
    assert {tuple(h.tokens) for h in found} == expected.keys()
    for hypothesis in found:
        score, times = expected[tuple(hypothesis.tokens)]
        assert hypothesis.score == pytest.approx(score, abs=1e-9)
        assert hypothesis.frames == times
        assert hypothesis.text == encoder.decode(hypothesis.tokens)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(0, 10_000), st.data())
def test_impossible_labels_leave_no_hypothesis(frames, seed, data):
    log_probs = random_log_probs(frames, len(CHARACTERS), seed)
    for frame in range(frames):
        for label in data.draw(st.sets(st.integers(0, 3), max_size=3)):
            log_probs[frame, label] = -math.inf
    expected = brute_force(log_probs.numpy())
    found = nbest_of_one(BeamDecoder(CHARACTERS, **EXACT), log_probs)
    assert {tuple(h.tokens): h.score for h in found} == {
        tokens: pytest.approx(score, abs=1e-9) for tokens, (score, _) in expected.items()
    }


def test_an_impossible_utterance_has_an_impossible_hypothesis():
    hypothesis = decode_one(BeamDecoder(CHARACTERS), torch.full((3, 4), -math.inf))
    assert (hypothesis.text, hypothesis.score) == ("", -math.inf)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 30), st.integers(0, 10_000), st.integers(1, 20))
def test_scores_fall_and_times_rise(frames, seed, width):
    found = nbest_of_one(BeamDecoder(PIECES, width), random_log_probs(frames, 4, seed))
    assert 1 <= len(found) <= width
    assert len({tuple(h.tokens) for h in found}) == len(found)
    assert all(a.score >= b.score for a, b in itertools.pairwise(found))
    for hypothesis in found:
        assert len(hypothesis.frames) == len(hypothesis.tokens)
        times = [-1, *hypothesis.frames, frames]
        assert all(a < b for a, b in itertools.pairwise(times))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(0, 10_000), st.data())
def test_neither_the_batch_nor_what_lies_beyond_a_length_changes_a_hypothesis(size, seed, data):
    lengths = [data.draw(st.integers(0, 20)) for _ in range(size)]
    log_probs = random_log_probs(size * 20, 4, seed).view(size, 20, 4)
    for row, length in zip(log_probs, lengths, strict=True):
        row[length:] = math.nan
    decoder = BeamDecoder(CHARACTERS, beam_width=7)
    together = decoder.nbest(log_probs, torch.tensor(lengths))
    alone = [nbest_of_one(decoder, row[:n]) for row, n in zip(log_probs, lengths, strict=True)]
    assert together == alone


def beam_by_the_book(log_probs, width):
    """{labels: ln p} of prefix search (Hannun et al. 2014) that keeps the ``width`` best of each frame."""
    beam = {(): (0.0, -math.inf)}  # ln p that ends in a blank, and in the last label
    for frame in log_probs:
        ways = {}
        for prefix, (blank, label) in beam.items():
            both = np.logaddexp(blank, label)
            ways.setdefault(prefix, [[], []])[0].append(both + frame[BLANK])
            for token in range(1, len(frame)):
                again = prefix[-1:] == (token,)
                if again:
                    ways[prefix][1].append(label + frame[token])
                longer = ways.setdefault((*prefix, token), [[], []])
                longer[1].append((blank if again else both) + frame[token])
        sums = {
            p: [np.logaddexp.reduce([-np.inf, *way]) for way in both] for p, both in ways.items()
        }
        possible = [prefix for prefix, both in sums.items() if max(both) > -np.inf]
        best = sorted(possible, key=lambda prefix: -np.logaddexp(*sums[prefix]))
        beam = {prefix: sums[prefix] for prefix in best[:width]}
    return {prefix: np.logaddexp(*both) for prefix, both in beam.items()}


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 12), st.integers(1, 40), st.sampled_from([0.5, 2.0, 8.0]), st.integers(0, 10_000)
)
def test_a_narrow_beam_keeps_the_best_of_each_frame_and_all_their_ways(
    frames, width, sharpness, seed
):
    log_probs = random_log_probs(frames, 7, seed, sharpness)
    expected = beam_by_the_book(log_probs.numpy(), width)
    decoder = BeamDecoder(CTCTextEncoder("abcde "), **(EXACT | {"beam_width": width}))
    found = {tuple(h.tokens): h.score for h in nbest_of_one(decoder, log_probs)}
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("weight", [0.4, 1.0])
def test_a_prior_is_divided_out_of_every_frame(weight):
    prior = [0.6, 0.3, 0.08, 0.02]
    log_probs = random_log_probs(6, 4, 0)
    log_probs[2] = -math.inf  # as a frame without any hope
    log_probs[2, 1] = 0
    scaled = log_probs.exp() / torch.tensor(prior, dtype=torch.float64) ** weight
    expected = nbest_of_one(
        BeamDecoder(CHARACTERS, **EXACT), (scaled / scaled.sum(-1, keepdim=True)).log()
    )
    decoder = BeamDecoder(CHARACTERS, **EXACT, label_prior=prior, prior_weight=weight)
    found = nbest_of_one(decoder, log_probs)
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    assert [h.score for h in found] == pytest.approx([h.score for h in expected])
    decoder.prior_weight = 0
    assert nbest_of_one(decoder, log_probs) != found
    decoder.prior_weight = weight
    assert decode_one(decoder, torch.full((3, 4), -math.inf)).score == -math.inf
    unknown = BeamDecoder(CHARACTERS)
    unknown.prior_weight = weight
    with pytest.raises(ValueError, match="needs a label_prior"):
        decode_one(unknown, log_probs)


def test_only_what_forks_compiles_before(monkeypatch):
    decoder, decoded = BeamDecoder(CHARACTERS, processes=2), []
    search = decoder._decode
    monkeypatch.setattr(decoder, "_decode", lambda task: decoded.append(task) or search(task))
    one, length = random_log_probs(5, 4, 0)[None], torch.tensor([5])
    decoder(one, length)
    assert len(decoded) == 1  # by itself: no process is made
    for _ in range(2):
        decoder(one.expand(2, -1, -1), length.expand(2))
    assert len(decoded) == 2  # once, for the pool's processes
    decoder._workers.close()


PATHS = st.lists(st.integers(0, 3), max_size=30)


@settings(deadline=None, max_examples=30)
@given(PATHS, st.integers(0, 1000), st.integers(1, 50))
def test_peaked_posteriors_leave_no_choice(path, seed, width):
    log_probs = peaked(path, 4, seed) if path else torch.zeros(0, 4)
    greedy = decode_one(GreedyDecoder(CHARACTERS), log_probs)
    for limits in [{}, {**EXACT, "beam_width": width}, {"blank_skip_threshold": 0.5}]:
        beam = decode_one(BeamDecoder(CHARACTERS, **{"beam_width": width, **limits}), log_probs)
        assert (beam.text, beam.tokens, beam.frames) == (greedy.text, greedy.tokens, greedy.frames)
        assert beam.score == pytest.approx(greedy.score, abs=0.05)


def test_a_skipped_blank_still_separates_equal_labels():
    log_probs = peaked([1, 1, BLANK, 1, BLANK, BLANK, 2], 4, height=30.0)
    assert log_probs[2, BLANK].exp() > 0.999
    assert decode_one(BeamDecoder(CHARACTERS), log_probs).text == "aab"


def test_merged_paths_win_over_the_best_path():
    # p(blank, blank) = 0.36 is the best path, but a, aa and the like sum up to 0.64
    log_probs = torch.tensor([[0.6, 0.4, 0.0, 0.0], [0.6, 0.4, 0.0, 0.0]]).log()
    assert decode_one(GreedyDecoder(CHARACTERS), log_probs).text == ""
    hypothesis = decode_one(BeamDecoder(CHARACTERS), log_probs)
    assert (hypothesis.text, hypothesis.score) == ("a", pytest.approx(math.log(0.64), abs=1e-6))


@pytest.mark.parametrize(
    ("limits", "texts"),
    [
        ({"token_min_logp": -4.0}, ["", "a", "b"]),
        ({"token_min_logp": -3.0}, ["", "a"]),
        ({"token_min_logp": -4.0, "beam_prune_logp": -3.0}, ["", "a"]),
        ({"token_min_logp": -4.0, "beam_width": 1}, [""]),
    ],
)
def test_improbable_labels_and_prefixes_are_dropped(limits, texts):
    log_probs = torch.tensor([[0.9, 0.06, 0.03, 0.01]]).log()
    assert [h.text for h in nbest_of_one(BeamDecoder(CHARACTERS, **limits), log_probs)] == texts


def test_the_best_label_is_always_tried():
    log_probs = torch.tensor([[0.2, 0.4, 0.3, 0.1]]).log()
    found = nbest_of_one(BeamDecoder(CHARACTERS, token_min_logp=-0.1), log_probs)
    assert [h.text for h in found] == ["a"]


@pytest.mark.parametrize(
    ("frames", "texts"),
    [
        ([[0.02, 0.9, 0.06, 0.02]], ["a", "b"]),  # no blank, so not ""
        ([[0.1, 0.9, 0, 0], [0.02, 0.02, 0.96, 0]], ["ab", "b"]),  # neither a blank nor a again
    ],
)
def test_blanks_and_repeats_below_the_limit_are_not_tried_either(frames, texts):
    decoder = BeamDecoder(CHARACTERS, token_min_logp=-3.0)
    assert [h.text for h in nbest_of_one(decoder, torch.tensor(frames).log())] == texts


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_is_read(dtype):
    log_probs = peaked([1, 0, 3, 2], 4).to(dtype).requires_grad_()
    assert decode_one(BeamDecoder(CHARACTERS), log_probs).text == "a b"


def test_the_nodes_grow_with_the_utterance():
    path = [1, 3, 2, BLANK, 2, 1, BLANK, 1] * 500  # far more labels than there are nodes at first
    log_probs = peaked(path, 4)
    greedy = decode_one(GreedyDecoder(CHARACTERS), log_probs)
    beam = decode_one(BeamDecoder(CHARACTERS, beam_width=2), log_probs)
    assert len(beam.tokens) > 2000
    assert (beam.tokens, beam.frames) == (greedy.tokens, greedy.frames)


def test_the_number_of_hypotheses_can_be_limited():
    log_probs = random_log_probs(5, 4, 0)[None]
    decoder = BeamDecoder(CHARACTERS)
    (three,) = decoder.nbest(log_probs, torch.tensor([5]), n=3)
    assert three == decoder.nbest(log_probs, torch.tensor([5]))[0][:3]
    assert decoder(log_probs[:0], torch.tensor([], dtype=torch.long)) == []


@pytest.mark.parametrize(
    "option",
    [
        {"beam_width": 0},
        {"blank_skip_threshold": 0.0},
        {"blank_skip_threshold": 1.5},
        {"token_min_logp": 5.0},
        {"beam_prune_logp": 10.0},
        {"beam_prune_logp": math.nan},
        {"unk_score_offset": 1.0},
        {"unk_score_offset": -math.inf},
        {"alpha": -0.5},
        {"beta": math.inf},
        {"prior_weight": -0.1},
        {"prior_weight": 0.3},
        {"label_prior": [0.5, 0.5]},
        {"label_prior": [0.5, 0.5, 0, 0]},
    ],
)
def test_an_option_out_of_range_is_named(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        BeamDecoder(CHARACTERS, **option)


def test_outputs_that_do_not_fit_are_refused():
    decoder = BeamDecoder(CHARACTERS)
    with pytest.raises(ValueError, match="7 labels, expected 4"):
        decode_one(decoder, torch.zeros(2, 7))
    with pytest.raises(ValueError, match="NaN"):
        decode_one(decoder, torch.full((2, 4), math.nan))
