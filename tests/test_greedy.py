"""The greedy decoder writes the most probable label of each real frame, collapsed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from asrlib.decoding import GreedyDecoder
from asrlib.decoding.contract import decode
from asrlib.text import BLANK, CTCTextEncoder, collapse

ENCODER = CTCTextEncoder("abc ")
DECODE = GreedyDecoder(ENCODER)


@st.composite
def outputs(draw):
    """``log_probs`` [B, T', V] and lengths [B]; ties are all but impossible."""
    size, frames = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    logits = 3 * torch.randn(size, frames, len(ENCODER), generator=generator)
    lengths = [draw(st.integers(1, frames)) for _ in range(size)]
    return logits.log_softmax(dim=-1), torch.tensor(lengths)


def log_probs_of(path):
    return torch.nn.functional.one_hot(torch.tensor(path), len(ENCODER)).float().log_softmax(-1)


@settings(deadline=None)
@given(outputs())
def test_greedy_is_the_collapse_of_the_argmax(output):
    log_probs, lengths = output
    for row, length, hypothesis in zip(log_probs, lengths, DECODE(log_probs, lengths), strict=True):
        path = row[:length].argmax(dim=-1).tolist()
        assert (hypothesis.tokens, hypothesis.frames) == collapse(path)
        assert hypothesis.text == ENCODER.ctc_decode(path)
        best = row[:length].max(dim=-1).values.sum()
        torch.testing.assert_close(torch.tensor(hypothesis.score), best)


@settings(deadline=None)
@given(outputs(), st.sampled_from([0.0, 50.0, float("nan")]))
def test_what_lies_beyond_a_length_changes_nothing(output, garbage):
    log_probs, lengths = output
    before = DECODE(log_probs, lengths)
    spoilt = torch.cat([log_probs, log_probs], dim=1)
    for row, length in zip(spoilt, lengths.tolist(), strict=True):
        row[length:] = garbage
    assert DECODE(spoilt, lengths) == before


@settings(deadline=None)
@given(outputs())
def test_the_batch_does_not_change_a_hypothesis(output):
    log_probs, lengths = output
    together = DECODE(log_probs, lengths)
    for i, hypothesis in enumerate(together):
        (alone,) = DECODE(log_probs[i : i + 1, : lengths[i]], lengths[i : i + 1])
        assert alone == hypothesis


def test_tokens_start_at_their_frames():
    path = [0, 1, 1, 0, 1, 3, 4, 4, 0, 2]
    (hypothesis,) = DECODE(log_probs_of(path)[None], torch.tensor([len(path)]))
    assert hypothesis.text == "aac b"
    assert hypothesis.tokens == [1, 1, 3, 4, 2]
    assert hypothesis.frames == [1, 4, 5, 6, 9]
    assert isinstance(hypothesis.score, float)


def test_blanks_alone_are_an_empty_text():
    (hypothesis,) = DECODE(log_probs_of([BLANK] * 5)[None], torch.tensor([5]))
    assert (hypothesis.text, hypothesis.tokens, hypothesis.frames) == ("", [], [])


def test_nan_in_a_frame_that_counts_is_an_error():
    log_probs = torch.zeros(1, 3, 3).log_softmax(-1)
    log_probs[0, 2] = torch.nan
    decoder = GreedyDecoder(CTCTextEncoder("ab"))
    assert decoder(log_probs, torch.tensor([2]))[0].score < 0
    with pytest.raises(ValueError, match="NaN"):
        decoder(log_probs, torch.tensor([3]))


def test_what_is_written_has_one_space_between_words_and_none_outside():
    encoder = CTCTextEncoder("ab ")
    path = torch.tensor([[3, 1, 3, 0, 3, 2, 2, 3]])
    output = {"log_probs": one_hot(path, 4).float().log(), "log_probs_length": torch.tensor([8])}
    assert GreedyDecoder(encoder)(*output.values())[0].text == " a  b "
    assert decode(GreedyDecoder(encoder), output)[0].text == "a b"
