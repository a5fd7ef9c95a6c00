"""Beam and language model: the score is the sum of three terms, whatever the order of the work."""

import gzip
import itertools
import math
import sys
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrlib.text import CTCTextEncoder
from tests.test_beam import (
    CHARACTERS,
    EXACT,
    PIECES,
    BeamDecoder,
    Pieces,
    brute_force,
    decode_one,
    nbest_of_one,
    peaked,
    random_log_probs,
)

kenlm = pytest.importorskip("kenlm")
beam = pytest.importorskip("asrlib.decoding.beam")
ngram = pytest.importorskip("asrlib.decoding.ngram")
vocabulary = pytest.importorskip("asrlib.decoding.vocabulary")

ARPA = """\\data\\
ngram 1=6
ngram 2=5

\\1-grams:
-1.5\t<unk>\t0
-99\t<s>\t-0.3
-0.9\t</s>\t0
-0.7\ta\t-0.2
-1.1\tab\t-0.4
-1.3\tbba\t-0.1

\\2-grams:
-0.4\t<s> a
-0.5\ta ab
-0.2\tab a
-0.8\ta </s>
-0.1\tbba </s>

\\end\\
"""
WORDS = {"a", "ab", "bba"}


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "tiny.arpa"
    path.write_text(ARPA)
    return path


def language_score(path, text, alpha, beta, offset):
    """What KenLM itself says about the words of ``text``, as the decoder weighs it."""
    words = text.split()
    unknown = sum(word not in WORDS for word in words)
    log10 = kenlm.Model(str(path)).score(" ".join(words), bos=True, eos=True)
    return alpha * math.log(10) * (log10 + offset * unknown) + beta * len(words)


@settings(deadline=None, max_examples=25)
@given(
    encoder=st.sampled_from(
        [CHARACTERS, PIECES, Pieces("▁a", "b", "▁bb"), Pieces("▁ab", "a", "b")]
    ),
    frames=st.integers(0, 5),
    seed=st.integers(0, 10_000),
    alpha=st.sampled_from([0.0, 0.5, 1.3]),
    beta=st.sampled_from([-1.0, 0.0, 1.5]),
    offset=st.sampled_from([-10.0, 0.0]),
)
def test_fusion_is_the_enumeration_of_all_paths_and_scores(
    arpa, encoder, frames, seed, alpha, beta, offset
):
    log_probs = random_log_probs(frames, len(encoder), seed)
    weights = {"alpha": alpha, "beta": beta, "unk_score_offset": offset}
    decoder = BeamDecoder(encoder, lm_path=arpa, **weights, **EXACT)
    found = {tuple(h.tokens): h for h in nbest_of_one(decoder, log_probs)}
    expected = brute_force(log_probs.numpy())
    assert found.keys() == expected.keys()
    for tokens, (score, times) in expected.items():
        text = encoder.decode(tokens)
        total = score + language_score(arpa, text, alpha, beta, offset)
        assert found[tokens].score == pytest.approx(total, abs=1e-5)  # KenLM's are float32
        assert (found[tokens].text, found[tokens].frames) == (text, times)
    scores = [h.score for h in nbest_of_one(decoder, log_probs)]
    assert scores == sorted(scores, reverse=True)


def test_the_language_model_decides_between_what_sounds_alike(arpa):
    # b and a are nearly as probable in the last frame: "a ab" is a bigram, "a aa" is no word
    log_probs = peaked([1, 3, 1, 0, 2], 4)
    log_probs[4] = torch.tensor([0.01, 0.55, 0.43, 0.01]).log()
    assert decode_one(BeamDecoder(CHARACTERS), log_probs).text == "a aa"
    assert decode_one(BeamDecoder(CHARACTERS, lm_path=arpa), log_probs).text == "a ab"


def test_a_word_that_has_begun_counts_as_the_most_frequent_that_begins_so(arpa):
    # b is a little more probable than a, but the words with a are much more so; later only a goes on
    log_probs = peaked([1, 3, 2, 3, 1], 4, height=40.0)
    log_probs[0] = torch.tensor([1e-9, 0.45, 0.55 - 1e-9, 1e-9]).log()
    narrow = {"beam_width": 1, "beta": 0.0, "lm_path": arpa}
    assert decode_one(BeamDecoder(CHARACTERS, **narrow, alpha=0.0), log_probs).text == "b b a"
    assert decode_one(BeamDecoder(CHARACTERS, **narrow, alpha=1.0), log_probs).text == "a b a"
    lm = ngram.NGram(arpa)
    alone = [math.log(10) * score for score in (-0.7, -1.1, -1.3, -1.5)]  # a, ab, bba, unknown
    begun = {b"": alone[0], b"a": alone[0], b"ab": alone[1], b"bba": alone[2]}
    trie, letters = lm.vocabulary.tolist(), {0: b""}
    for prefix in range(len(trie) - 1):
        for longer in range(trie[prefix][1], trie[prefix + 1][1]):
            letters[longer] = letters[prefix] + bytes([trie[longer][0]])
    for prefix, spelled in letters.items():
        if spelled in begun:
            assert lm.ahead[prefix] == pytest.approx(begun[spelled], abs=1e-6)
    assert lm.ahead[-1] == pytest.approx(alone[3], abs=1e-6)


def test_weights_may_be_set_between_calls(arpa):
    log_probs = random_log_probs(5, 4, 1)
    decoder = BeamDecoder(CHARACTERS, lm_path=arpa, **EXACT)
    before = nbest_of_one(decoder, log_probs)
    decoder.alpha, decoder.beta = 0.0, 0.0
    assert nbest_of_one(decoder, log_probs) != before
    plain = nbest_of_one(BeamDecoder(CHARACTERS, **EXACT), log_probs)
    assert nbest_of_one(decoder, log_probs) == plain
    decoder.alpha, decoder.beta = 0.5, 1.5
    assert nbest_of_one(decoder, log_probs) == before


def test_the_number_of_processes_changes_nothing(arpa):
    log_probs = torch.stack([random_log_probs(12, 4, seed) for seed in range(5)])
    lengths = torch.tensor([12, 7, 0, 9, 12])
    alone, together = (
        BeamDecoder(CHARACTERS, lm_path=arpa, processes=processes) for processes in (1, 2)
    )
    expected = alone.nbest(log_probs, lengths, 3)
    for _ in range(2):
        assert together.nbest(log_probs, lengths, 3) == expected
    alone.alpha = together.alpha = 2.5
    assert together.nbest(log_probs, lengths, 3) == alone.nbest(log_probs, lengths, 3) != expected


def test_what_was_asked_before_changes_nothing(arpa, monkeypatch):
    outputs = [random_log_probs(20, 4, seed) for seed in range(10)]
    decoder = BeamDecoder(CHARACTERS, lm_path=arpa)
    together = [nbest_of_one(decoder, output) for output in outputs]
    fresh = [nbest_of_one(BeamDecoder(CHARACTERS, lm_path=arpa), output) for output in outputs]
    assert together == fresh
    monkeypatch.setattr(ngram, "FORGET_AT", 0)
    assert [nbest_of_one(decoder, output) for output in reversed(outputs)] == fresh[::-1]


def test_the_table_grows_and_keeps_what_it_holds(arpa, monkeypatch):
    log_probs = random_log_probs(20, 4, seed=3)
    decoder = BeamDecoder(CHARACTERS, lm_path=arpa)
    expected, size = nbest_of_one(decoder, log_probs), len(decoder.lm.table.answers)
    decode_one(decoder, torch.full((100, 4), -math.inf))  # long, and nothing to ask
    assert len(decoder.lm.table.answers) > size
    monkeypatch.setattr(decoder.lm, "answer", lambda questions: pytest.fail("asked again"))
    assert nbest_of_one(decoder, log_probs) == expected


class Interrupted:
    """A language model whose use is interrupted once, after ``calls`` calls."""

    def __init__(self, model, calls):
        self.model, self.calls = model, calls

    def BaseScore(self, *arguments):  # noqa: N802
        self.calls -= 1
        if self.calls == -1:
            raise KeyboardInterrupt
        return self.model.BaseScore(*arguments)


@pytest.mark.parametrize("frames", [1, 20])
def test_an_interrupted_search_leaves_nothing_behind(arpa, monkeypatch, frames):
    log_probs = random_log_probs(frames, 4, seed=1)
    decoder, held = BeamDecoder(CHARACTERS, lm_path=arpa), []
    expected, search = nbest_of_one(decoder, log_probs), beam.best_prefixes
    decoder.lm.forget()
    model = decoder.lm.model

    def watched(log_probs, *others):
        held.append(weakref.ref(log_probs))
        return search(log_probs, *others)

    monkeypatch.setattr(beam, "best_prefixes", watched)
    for calls in itertools.count():  # what was answered before is not asked again
        decoder.lm.model = Interrupted(model, calls)
        try:
            found = nbest_of_one(decoder, log_probs.clone())
            break
        except KeyboardInterrupt:
            pass
        assert held[-1]() is None
    assert calls >= 3
    assert found == expected


LETTERS = st.text("abé", min_size=1, max_size=5)


@given(st.sets(LETTERS, max_size=12), st.lists(LETTERS, max_size=5))
def test_the_trie_spells_the_vocabulary_and_nothing_else(words, others):
    words = sorted(words)
    trie = vocabulary.vocabulary_trie(words).tolist()

    def number(word):
        prefix = 0
        for letter in word.encode():
            longer = range(trie[prefix][1], trie[prefix + 1][1])
            found = [place for place in longer if trie[place][0] == letter]
            if not found:
                return None
            (prefix,) = found
        return trie[prefix][2]

    assert [number(word) for word in words] == [*range(1, len(words) + 1)]
    for other in {*others, ""} - {*words}:
        begun = any(word.startswith(other) for word in words) or not other
        assert number(other) == (vocabulary.UNKNOWN if begun else None)


def test_compressed_models_say_the_same(arpa, tmp_path):
    compressed = tmp_path / "tiny.arpa.gz"
    compressed.write_bytes(gzip.compress(ARPA.encode()))
    log_probs = random_log_probs(5, 4, 2)
    plain, packed = (BeamDecoder(CHARACTERS, lm_path=path) for path in (arpa, compressed))
    assert nbest_of_one(plain, log_probs) == nbest_of_one(packed, log_probs)


def test_a_compressed_model_is_read_where_kenlm_knows_no_gzip(arpa, tmp_path, monkeypatch):
    compressed = tmp_path / "tiny.arpa.gz"
    compressed.write_bytes(gzip.compress(ARPA.encode()))
    read = kenlm.Model

    def model(path, *options):
        if path.endswith(".gz"):
            raise OSError("This looks like a gzip file but gzip support was not compiled in.")
        return read(path, *options)

    monkeypatch.setattr(kenlm, "Model", model)
    log_probs = random_log_probs(5, 4, 2)
    plain, packed = (BeamDecoder(CHARACTERS, lm_path=path) for path in (arpa, compressed))
    assert nbest_of_one(plain, log_probs) == nbest_of_one(packed, log_probs)


def test_the_words_of_a_binary_are_at_its_end(tmp_path):
    binary = tmp_path / "lm.bin"
    binary.write_bytes(b"mmap lm http://kheafield.com/code\n\0\1\2<unk>\0b\0<s>\0\xc3\xa9\0</s>\0")
    words = list(ngram.vocabulary_of(binary))
    assert words == [b"<unk>", b"b", b"<s>", "é".encode(), b"</s>"]


def test_words_are_found_however_the_file_spells_them(tmp_path, monkeypatch):
    monkeypatch.setenv("ASRLIB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "accents.arpa"
    path.write_text(ARPA.replace("\tbba", "\tÉTÉ").replace("bba ", "ÉTÉ "), encoding="utf-8")
    decoder = BeamDecoder(CTCTextEncoder("te"), lm_path=path, alpha=1.0, beta=0.0)
    hypothesis = decode_one(decoder, peaked([2, 1, 2], 3, height=40.0))
    assert hypothesis.text == "ete"
    assert hypothesis.score == pytest.approx(math.log(10) * (-0.3 - 1.3 - 0.1), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("token_min_logp", [-20.0, -1.5])
def test_weights_and_limits_mean_what_they_mean_to_pyctcdecode(arpa, seed, token_min_logp):
    pyctcdecode = pytest.importorskip("pyctcdecode")
    weights = {"alpha": 0.7, "beta": 0.9, "unk_score_offset": -3.0}
    reference = pyctcdecode.build_ctcdecoder(
        CHARACTERS.pieces, str(arpa), unigrams=sorted(WORDS), **weights
    )
    limits = {"beam_width": 2000, "beam_prune_logp": -1000.0, "token_min_logp": token_min_logp}
    logits = 2 * torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))
    # Letters first and last: pyctcdecode joins texts that differ in outer and double spaces, and
    # takes nothing after a last space for an unknown word.
    logits[[0, -1], 0] = logits[[0, -1], 3] = -1000.0
    log_probs = logits.log_softmax(-1)
    best = reference.decode_beams(log_probs.numpy(), **limits)[0]
    limits["blank_skip_threshold"] = 1.0
    ours = decode_one(BeamDecoder(CHARACTERS, lm_path=arpa, **weights, **limits), log_probs)
    assert (ours.text, ours.score) == (best[0], pytest.approx(best[-1], abs=1e-5))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no language model at"):
        BeamDecoder(CHARACTERS, lm_path=tmp_path / "nowhere.arpa")


def test_what_is_no_language_model_is_refused(tmp_path):
    path = tmp_path / "notes.arpa"
    path.write_text("nothing of the kind\n")
    with pytest.raises(ValueError, match="not a language model"):
        BeamDecoder(CHARACTERS, lm_path=path)


def test_without_kenlm_the_error_says_what_to_install(arpa, monkeypatch):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ModuleNotFoundError, match="pip install kenlm"):
        BeamDecoder(CHARACTERS, lm_path=arpa)
