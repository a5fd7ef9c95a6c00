"""The LM decoder is pyctcdecode in our contract, whichever process does the work."""

import gc
import gzip
import itertools
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from asrlib import Recognizer
from asrlib.build import build_decoder
from asrlib.configs import compose
from asrlib.decoding import GreedyDecoder, Hypothesis, LongForm, worker_pool
from asrlib.decoding.align import align
from asrlib.decoding.lm import LMDecoder
from asrlib.decoding.words import Word, words_of
from asrlib.text import BPETextEncoder, CTCTextEncoder, collapse
from tests.test_beam import brute_force, decode_one, peaked, random_log_probs
from tests.test_ngram import ARPA, BeamDecoder

pyctcdecode = pytest.importorskip("pyctcdecode")

CHARACTERS = CTCTextEncoder("ab ")
BPE = BPETextEncoder(" ab", [(1, 2)])  # pieces: ▁, a, b, ▁a
ENCODERS = st.sampled_from([CHARACTERS, BPE])
WIDE = {"beam_width": 2000, "beam_prune_logp": -math.inf, "token_min_logp": -math.inf}
SILENT = {"alpha": 0.0, "beta": 0.0}


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "tiny.arpa"
    path.write_text(ARPA)
    return path


@pytest.fixture(scope="module")
def pool(arpa):
    """A decoder with two workers."""
    with LMDecoder(CHARACTERS, arpa, processes=2) as decoder:
        yield decoder


def single(encoder, path, **options):
    return LMDecoder(encoder, path, processes=1, **options)


def batch(count, frames=12):
    """Utterances of different lengths and texts: ``log_probs`` [B, T', V] and lengths [B]."""
    rows = [random_log_probs(frames, len(CHARACTERS), seed, 4.0) for seed in range(count)]
    return torch.stack(rows), torch.tensor([frames - i % 5 for i in range(count)])


def by_text(encoder, log_probs):
    """{text: ln p of all paths that write it}; spaces at the ends and doubled ones do not count."""
    scores = {}
    for tokens, (score, _) in brute_force(log_probs).items():
        text = " ".join(encoder.decode(tokens).split())
        scores[text] = np.logaddexp(scores.get(text, -np.inf), score)
    return scores


@settings(deadline=None, max_examples=40)
@given(ENCODERS, st.integers(1, 5), st.integers(0, 10_000))
def test_without_weights_and_limits_it_finds_the_most_probable_text(arpa, encoder, frames, seed):
    log_probs = random_log_probs(frames, len(encoder), seed)
    expected = by_text(encoder, log_probs.numpy())
    hypothesis = decode_one(single(encoder, arpa, **SILENT, **WIDE), log_probs)
    assert hypothesis.score == pytest.approx(max(expected.values()), abs=1e-6)
    assert hypothesis.score == pytest.approx(expected[hypothesis.text], abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(ENCODERS, st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 1000))
def test_clear_speech_is_read_as_by_our_own_decoders(arpa, encoder, path, seed):
    log_probs = peaked(path, len(encoder), seed, height=25.0)
    ours = decode_one(BeamDecoder(encoder), log_probs)
    # an empty text, and one that ends in a space, are charged as unknown words: without weights not
    hypothesis = decode_one(single(encoder, arpa, **SILENT), log_probs)
    assert hypothesis.text == " ".join(ours.text.split())


def test_a_word_start_of_its_own_breaks_no_other_word(arpa):
    # ▁ is never the best label, but tried; to pyctcdecode itself it is the end of the unknown token
    log_probs = torch.full((3, len(BPE)), -20.0)
    for frame, piece in enumerate(["▁a", "b", "a"]):
        log_probs[frame, BPE.pieces.index(piece)] = math.log(0.9)
        log_probs[frame, BPE.pieces.index("▁")] = math.log(0.1)
    log_probs = log_probs.log_softmax(-1)
    assert decode_one(single(BPE, arpa, **SILENT), log_probs).text == "aba"
    direct = pyctcdecode.build_ctcdecoder(BPE.pieces).decode(log_probs.numpy())
    assert direct != "aba"  # or the workaround is no longer needed


@pytest.mark.parametrize("encoder", [CHARACTERS, BPETextEncoder(" ab", [(1, 2), (1, 3), (4, 3)])])
@pytest.mark.parametrize("seed", range(8))
def test_with_a_language_model_texts_and_scores_are_pyctcdecodes(arpa, encoder, seed):
    weights = {"alpha": 0.7, "beta": 0.9, "unk_score_offset": -3.0}
    reference = pyctcdecode.build_ctcdecoder(
        encoder.pieces, str(arpa), unigrams=["a", "ab", "bba"], **weights
    )
    log_probs = random_log_probs(12, len(encoder), seed)
    if encoder.word_starts:  # not what pyctcdecode mistakes for the end of the unknown token
        log_probs[:, encoder.pieces.index("▁")] = -100.0
    for options in [{}, {"hotwords": ["bb"], "hotword_weight": 3.0}, {"prune_history": True}]:
        text, _, _, _, score = reference.decode_beams(log_probs.numpy(), **options)[0]
        hypothesis = decode_one(single(encoder, arpa, **weights, **options), log_probs)
        assert (hypothesis.text, hypothesis.score) == (text, pytest.approx(score, abs=1e-6))


@settings(deadline=None, max_examples=40)
@given(
    encoder=ENCODERS,
    frames=st.integers(0, 25),
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.5, 2.0, 8.0]),
)
def test_tokens_and_frames_write_the_text_in_order(arpa, encoder, frames, seed, sharpness):
    log_probs = random_log_probs(frames, len(encoder), seed, sharpness)
    hypothesis = decode_one(single(encoder, arpa), log_probs)
    assert encoder.decode(hypothesis.tokens) == hypothesis.text
    assert len(hypothesis.frames) == len(hypothesis.tokens)
    times = [0, *hypothesis.frames, max(frames - 1, 0)]
    assert all(a <= b for a, b in itertools.pairwise(times))
    if encoder is CHARACTERS:  # there is only one way to spell a word: each letter has its frame
        assert len(set(hypothesis.frames)) == len(hypothesis.frames)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 1000))
def test_in_clear_speech_tokens_have_the_frames_of_the_best_path(arpa, path, seed):
    path = [2, *path, 2]  # no spaces at the ends, and no double ones: the text has none
    path = [p for before, p in itertools.pairwise([0, *path]) if not before == p == 3]
    log_probs = peaked(path, len(CHARACTERS), seed, height=25.0)
    greedy = decode_one(GreedyDecoder(CHARACTERS), log_probs)
    if "  " not in greedy.text:
        hypothesis = decode_one(single(CHARACTERS, arpa, **SILENT), log_probs)
        assert (hypothesis.tokens, hypothesis.frames) == (greedy.tokens, greedy.frames)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(0, 10_000), st.data())
def test_alignment_is_the_best_of_all_paths_that_write_the_labels(frames, seed, data):
    log_probs = random_log_probs(frames, 4, seed)
    expected = {tokens: times for tokens, (_, times) in brute_force(log_probs.numpy()).items()}
    tokens = data.draw(st.sampled_from(sorted(t for t in expected if t)))
    assert align(log_probs.numpy(), tokens) == expected[tokens]


def test_labels_without_room_share_frames():
    assert align(np.zeros((1, 4)), [1, 2, 3]) == [0, 0, 0]
    assert align(np.zeros((2, 4)), [1, 1]) == [0, 1]  # equal ones need a blank between


def test_words_have_times_whatever_decoded_them():
    hypothesis = Hypothesis("ab a", 0.0, [1, 2, 3, 3, 1], [2, 4, 5, 7, 9])
    assert words_of(hypothesis, CHARACTERS, 0.02) == [Word("ab", 0.04, 0.1), Word("a", 0.18, 0.2)]
    hypothesis = Hypothesis("b a ab", 0.0, [3, 1, 4, 1, 2, 3], [1, 2, 3, 5, 6, 8])
    assert words_of(hypothesis, BPE, 1.0) == [Word("b", 1, 2), Word("a", 3, 4), Word("ab", 6, 9)]
    assert words_of(Hypothesis("", 0.0, [], []), BPE, 1.0) == []
    joined = Hypothesis("ab a", 0.0, [1, 2, 1], [1, 2, 5])  # from windows that end with words
    assert words_of(joined, CHARACTERS, 1.0) == [Word("ab", 1, 3), Word("a", 5, 6)]


@settings(deadline=None)
@given(ENCODERS, st.lists(st.integers(0, 3), max_size=20))
def test_words_joined_are_the_text(encoder, path):
    tokens, frames = collapse(path)
    hypothesis = Hypothesis(encoder.decode(tokens), 0.0, tokens, frames)
    words = words_of(hypothesis, encoder, 0.02)
    assert [word.text for word in words] == hypothesis.text.split()
    assert all(word.start < word.end for word in words)


class Spoken(torch.nn.Module):
    """A model that hears "ab", a long pause, "a" again and again; a frame is 20 ms."""

    device, samples_per_frame = "cpu", 320

    def forward(self, audio, lengths):
        frames = lengths // self.samples_per_frame
        # the windows begin at multiples of 22 seconds, 1100 frames: a multiple of the pattern's 20
        path = [1, 2, *[0] * 3, 3, *[0] * 6, 1, *[0] * 3, 3, *[0] * 3] * (int(frames.max()) // 20)
        log_probs = peaked(path, len(CHARACTERS), height=25.0)[None].repeat(len(audio), 1, 1)
        return {"log_probs": log_probs, "log_probs_length": frames}


def test_long_recordings_are_joined_and_their_words_have_times(arpa):
    audio = np.zeros(320 * 20 * 200, dtype=np.float32)  # 80 seconds
    recognizer = Recognizer(Spoken(), CHARACTERS, single(CHARACTERS, arpa, **SILENT))
    transcript = recognizer.transcribe(audio)
    assert transcript.text == " ".join(["ab a"] * 200)
    assert [word.text for word in transcript.words] == transcript.text.split()
    assert [word.start for word in transcript.words[:3]] == [0.0, 0.24, 0.4]
    assert transcript.words[-1].start == pytest.approx(199 * 0.4 + 0.24)
    hypothesis = LongForm(Spoken(), recognizer.decoder, CHARACTERS)([audio])
    assert hypothesis == transcript.hypothesis
    assert hypothesis.frames == sorted(hypothesis.frames)


def test_hotwords_are_preferred_normalised_and_may_be_set_between_calls(arpa):
    log_probs = peaked([1, 0, 1, 3, 1], 4)
    log_probs[2] = torch.tensor([0.01, 0.3, 0.68, 0.01]).log()
    decoder = single(CHARACTERS, arpa)
    assert decode_one(decoder, log_probs).text == "ab a"
    decoder.hotwords, decoder.hotword_weight = ["AÁ", "bb-ba"], 20.0
    assert decoder.hotwords == ("aa", "bb", "ba")
    assert decode_one(decoder, log_probs).text == "aa a"
    decoder.hotword_weight = 0.0
    assert decode_one(decoder, log_probs).text == "ab a"


@pytest.mark.parametrize("words", ["ab", [""], ["!"], ["a1"], ["abc"], [None], [["a"]]])
def test_unusable_hotwords_are_named(arpa, words):
    with pytest.raises(ValueError, match="hotword"):
        LMDecoder(CHARACTERS, arpa, hotwords=words)


def test_weights_may_be_set_between_calls(arpa):
    log_probs = random_log_probs(12, 4, 1)
    decoder, seen = single(CHARACTERS, arpa), set()
    names = ("alpha", "beta", "unk_score_offset", "score_boundary")
    for values in [
        (0.5, 1.5, -10, True),
        (2, 1.5, -10, True),
        (2, 0, -10, True),
        (2, 0, -1, True),
        (2, 0, -1, False),
    ]:
        options = dict(zip(names, values, strict=True))
        for name, value in options.items():
            setattr(decoder, name, value)
        hypothesis = decode_one(decoder, log_probs)
        assert hypothesis == decode_one(single(CHARACTERS, arpa, **options), log_probs)
        seen.add(hypothesis.score)
    assert len(seen) == 5
    decoder.alpha = -1.0
    with pytest.raises(ValueError, match=r"alpha -1.0"):
        decode_one(decoder, log_probs)


def test_workers_give_the_same_in_the_same_order(arpa, pool):
    log_probs, lengths = batch(9)
    expected = single(CHARACTERS, arpa)(log_probs, lengths)
    assert len({h.score for h in expected}) == 9
    assert pool(log_probs, lengths) == expected
    assert pool(log_probs.flip(0), lengths.flip(0)) == expected[::-1]
    assert pool(log_probs[:1], lengths[:1]) == expected[:1]
    assert pool(log_probs[:0], lengths[:0]) == []
    assert pool(log_probs[:3], torch.tensor([0, 12, 0]))[0] == Hypothesis("", 0.0, [], [])


class Odd(Exception):  # noqa: N818
    """Cannot be made again of its text alone, as pickle would."""

    def __init__(self, what, where):
        super().__init__(f"{what} at {where}")


@pytest.mark.parametrize(
    ("error", "arrives", "told"),
    [
        (KeyError("x"), KeyError, "x"),
        (Odd("nothing", "all"), RuntimeError, "Odd: nothing at all"),
        (ValueError("big", iter(())), ValueError, "big"),
        (ValueError("big", lambda: 0), RuntimeError, "ValueError: .*big"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_told(error, arrives, told):
    def fail(task):
        raise error

    with pytest.raises(arrives, match=told) as raised:
        worker_pool.Workers(2).map(fail, [1, 2])
    assert "in fail\n" in str(raised.value.__cause__)


def test_new_weights_and_hotwords_reach_the_workers(arpa):
    log_probs, lengths = batch(4)
    with LMDecoder(CHARACTERS, arpa, processes=2) as decoder:
        before = decoder(log_probs, lengths)
        processes = [p.pid for p in decoder._workers.pool._workers.values()]
        for name, value in [("alpha", 2.0), ("beta", -3.0), ("hotwords", ["bab"])]:
            setattr(decoder, name, value)
            options = {n: getattr(decoder, n) for n in ("alpha", "beta", "hotwords")}
            after = decoder(log_probs, lengths)
            assert after != before
            assert after == single(CHARACTERS, arpa, **options)(log_probs, lengths)
            before = after
        assert processes == [p.pid for p in decoder._workers.pool._workers.values()]


def test_an_error_in_a_worker_arrives_and_the_next_call_works(arpa, monkeypatch):
    log_probs, lengths = batch(6)
    expected = single(CHARACTERS, arpa)(log_probs, lengths)
    decode, failures = LMDecoder._decode, []

    def fails(self, task):
        if failures and len(task.log_probs) == 10:
            failures[0]()
        while failures and len(task.log_probs) == 11:  # at work when the other one fails
            signal.pause()
        return decode(self, task)

    def refuse():
        raise LookupError("this one")

    monkeypatch.setattr(LMDecoder, "_decode", fails)
    with LMDecoder(CHARACTERS, arpa, processes=2) as decoder:
        failures[:] = [refuse]
        with pytest.raises(LookupError, match="this one"):
            decoder(log_probs, lengths)
        assert not any(worker.is_alive() for worker in decoder._workers.pool._workers.values())
        failures[:] = [lambda: os._exit(1)]
        with pytest.raises(RuntimeError, match="a decoding process died"):
            decoder(log_probs, lengths)
        failures.clear()
        assert decoder(log_probs, lengths) == expected


def test_processes_end_and_the_model_is_freed_with_the_decoder(arpa):
    gc.collect()  # what other tests left
    container = pyctcdecode.BeamSearchDecoderCTC.model_container
    models = len(container)
    decoder = LMDecoder(CHARACTERS, arpa, processes=2)
    decoder(*batch(2))
    workers = [*decoder._workers.pool._workers.values()]
    assert all(worker.is_alive() for worker in workers)
    del decoder
    gc.collect()
    assert not any(worker.is_alive() for worker in workers)
    assert len(container) == models
    with LMDecoder(CHARACTERS, arpa) as decoder:
        assert len(container) == models + 1
    decoder.close()
    assert len(container) == models
    with pytest.raises(ValueError, match="closed"):
        decode_one(decoder, torch.zeros(2, 4))


def test_without_fork_one_process_does_the_work(arpa, monkeypatch):
    log_probs, lengths = batch(3)
    expected = single(CHARACTERS, arpa)(log_probs, lengths)
    monkeypatch.setattr(worker_pool, "can_fork", lambda: False)
    with LMDecoder(CHARACTERS, arpa, processes=2) as decoder:
        assert decoder(log_probs, lengths) == expected
        assert decoder._workers.pool is None


SCRIPT = """
import os, signal, sys
import torch
from asrlib.decoding.lm import LMDecoder
from asrlib.text import CTCTextEncoder

signal.signal(signal.SIGINT, signal.default_int_handler)  # may be inherited as ignored

class Decoder(LMDecoder):
    def _decode(self, task):
        os.write(1, b"%d\\n" % os.getpid())
        {work}
        return super()._decode(task)

decoder = Decoder(CTCTextEncoder("ab "), sys.argv[1], processes=2)
decoder(torch.randn(4, 5, 4).log_softmax(-1), torch.tensor([5, 5, 5, 5]))
{after}
"""


def start(arpa, work="", after=""):
    script = textwrap.dedent(SCRIPT).format(work=work, after=after)
    return subprocess.Popen(
        [sys.executable, "-c", script, str(arpa)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # of which the terminal's Ctrl-C reaches every process
    )


def end(process):
    """Standard error, once all processes that could write to it have ended, at most a minute."""
    try:
        return process.communicate(timeout=60)[1]
    finally:
        with suppress(ProcessLookupError):  # as it should be: the whole group has ended
            os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_ends_a_batch_and_its_processes(arpa):
    process = start(arpa, work="while True: signal.pause()")
    workers = {int(process.stdout.readline()) for _ in range(2)}  # both are at work
    assert len(workers - {process.pid}) == 2
    os.killpg(process.pid, signal.SIGINT)
    errors = end(process)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.parametrize(
    ("after", "returncode"),
    [("", 0), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)],
    ids=["exit", "kill"],
)
def test_no_process_outlives_the_interpreter(arpa, after, returncode):
    process = start(arpa, after=after)
    assert (end(process), process.returncode) == ("", returncode)


def test_every_kind_of_file_says_the_same_and_none_is_written(arpa, tmp_path):
    compressed = tmp_path / "tiny.arpa.gz"
    compressed.write_bytes(gzip.compress(ARPA.encode()))
    content = compressed.read_bytes()
    log_probs = random_log_probs(12, 4, 2)
    plain, packed = (decode_one(single(CHARACTERS, p), log_probs) for p in (arpa, compressed))
    assert plain == packed
    assert [*tmp_path.iterdir()] == [compressed] and compressed.read_bytes() == content


@pytest.mark.parametrize("encoder", [CHARACTERS, BPE])
def test_nothing_is_logged_about_a_usual_model(arpa, encoder, caplog):
    with caplog.at_level(logging.WARNING):
        single(encoder, arpa)
    assert caplog.records == []


def test_a_language_model_in_capitals_is_as_good(arpa, tmp_path, monkeypatch):
    monkeypatch.setenv("ASRLIB_CACHE", str(tmp_path / "cache"))
    capitals = tmp_path / "capitals.arpa"
    lines = [line.upper() if line.startswith("-") else line for line in ARPA.splitlines()]
    capitals.write_text("\n".join(lines))
    one, other = LMDecoder(CHARACTERS, arpa), LMDecoder(CHARACTERS, capitals)
    log_probs = torch.randn(1, 12, len(CHARACTERS)).log_softmax(-1)
    lengths = torch.tensor([12])
    assert one(log_probs, lengths) == other(log_probs, lengths)


def test_what_is_missing_is_named(arpa, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="set lm_path"):
        LMDecoder(CHARACTERS, tmp_path / "nowhere.arpa")
    monkeypatch.setitem(sys.modules, "pyctcdecode", None)
    with pytest.raises(ModuleNotFoundError, match=r"requirements-nodeps\.txt"):
        LMDecoder(CHARACTERS, arpa)
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ModuleNotFoundError, match="pip install kenlm"):
        LMDecoder(CHARACTERS, arpa)


@pytest.mark.parametrize(
    "option",
    [
        {"beam_width": 0},
        {"beam_prune_logp": 1.0},
        {"beam_prune_logp": math.nan},
        {"token_min_logp": 0.5},
        {"alpha": -0.5},
        {"alpha": math.inf},
        {"beta": math.nan},
        {"unk_score_offset": 1.0},
        {"hotword_weight": -1.0},
        {"processes": 0},
    ],
)
def test_an_option_out_of_range_is_named(arpa, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        LMDecoder(CHARACTERS, arpa, **option)


def test_outputs_that_do_not_fit_are_refused(pool):
    with pytest.raises(ValueError, match="7 labels, expected 4"):
        decode_one(pool, torch.zeros(2, 7))
    with pytest.raises(ValueError, match="NaN"):
        decode_one(pool, torch.full((2, 4), math.nan))
    log_probs, lengths = batch(2)
    log_probs[1, lengths[1] :] = math.nan  # beyond the length nothing is read
    assert len(pool(log_probs, lengths)) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type_and_impossible_frames_are_read(pool, dtype):
    log_probs = peaked([1, 0, 3, 2], 4).to(dtype).requires_grad_()
    assert decode_one(pool, log_probs).text == "a b"
    assert math.isfinite(decode_one(pool, torch.full((3, 4), -math.inf, dtype=dtype)).score)


def test_the_configuration_builds_it(arpa):
    config = compose("inference", "decoder=lm", f"decoder.lm_path={arpa}", "decoder.hotwords=[ab]")
    assert config.decoder.name == "pyctcdecode+lm"
    decoder = build_decoder(config.decoder, CHARACTERS)
    default = LMDecoder(CHARACTERS, arpa, hotwords=["ab"])
    sections = OmegaConf.to_container(config.decoder).keys() - {"name", "_target_", "lm_path"}
    assert {n: getattr(decoder, n) for n in sections} == {n: getattr(default, n) for n in sections}
