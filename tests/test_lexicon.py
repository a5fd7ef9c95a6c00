"""The search by phones finds what trying every sequence of words finds."""

import itertools
import math

import numpy as np
import pytest
import torch

pytest.importorskip("numba")
pytest.importorskip("kenlm")
pytest.importorskip("espeakng_loader")

from asrlib.decoding.contract import decode
from asrlib.decoding.greedy import GreedyDecoder
from asrlib.decoding.lexicon import LexiconDecoder
from asrlib.decoding.ngram import LN_10, NGram
from asrlib.decoding.pronunciations import lexicon_of, pronunciations, write_lexicon_of
from asrlib.model.losses import torchs_losses
from asrlib.text import CTCTextEncoder
from asrlib.text.lexicon import read_lexicon, write_lexicon
from asrlib.text.phones import PHONES, Pronouncer
from tests.corpus import made_by_hand

P = 1 + len(PHONES)
ENCODER = CTCTextEncoder()
# "knight" and "night" sound alike, "eye" is "i", "night" begins "nights", and "an" is a "a" too long
WORDS = ["a", "an", "eye", "i", "knight", "night", "nights"]
EXACT = {"token_min_logp": -math.inf, "beam_prune_logp": -math.inf, "blank_skip_threshold": 1.0}
FRAMES = 7


@pytest.fixture(scope="module")
def lm_path(tmp_path_factory):
    """A bigram model in which a word's successors differ."""
    rng, pairs = np.random.default_rng(5), [*itertools.product(["<s>", *WORDS], [*WORDS, "</s>"])]
    unigrams = [f"{-rng.uniform(0.5, 2):.3f}\t{word}\t{-rng.uniform(0, 1):.3f}" for word in WORDS]
    bigrams = [f"{-rng.uniform(0.2, 2):.3f}\t{a} {b}" for a, b in pairs if rng.random() < 0.5]
    lines = ["\\data\\", f"ngram 1={len(WORDS) + 3}", f"ngram 2={len(bigrams)}", ""]
    lines += ["\\1-grams:", "-99\t<s>\t-0.3", "-0.7\t</s>\t0", "-3\t<unk>\t0", *unigrams, ""]
    lines += ["\\2-grams:", *bigrams, "", "\\end\\", ""]
    path = tmp_path_factory.mktemp("lm") / "words.arpa"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def phones_of():
    return Pronouncer()


def heard(seed, phones_of, frames=FRAMES, sharp=2.0):
    """Outputs at random, in which only the phones of ``WORDS`` are likely; and their length."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharp * torch.randn(1, frames, P, generator=generator)
    likely = [0, *sorted({phone for phones in phones_of.words(WORDS) for phone in phones})]
    logits[..., [i for i in range(P) if i not in likely]] -= 12
    labels = torch.randn(1, frames, len(ENCODER), generator=generator)
    return {
        "phone_log_probs": logits.log_softmax(-1),
        "log_probs": labels.log_softmax(-1),
        "log_probs_length": torch.tensor([frames]),
    }


def brute_force(output, lm_path, phones_of, alpha, beta, most=4):
    """{text: ln p of its phones, the language model and the number of words} of all that fit."""
    model, lengths = NGram(lm_path).model, output["log_probs_length"]
    texts = [
        " ".join(words) for n in range(most + 1) for words in itertools.product(WORDS, repeat=n)
    ]
    phones, sizes = phones_of(texts)
    output = output["phone_log_probs"].double().expand(len(texts), -1, -1)
    losses = torchs_losses(output, lengths.repeat(len(texts)), phones, sizes)
    return {
        text: -loss
        + alpha * LN_10 * model.score(text, bos=True, eos=True)
        + beta * len(text.split())
        for text, loss in zip(texts, losses.tolist(), strict=True)
        if loss < math.inf
    }


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (0.8, 1.5), (1.5, -0.5)])
def test_it_finds_the_best_of_all_sequences_of_words(lm_path, phones_of, seed, alpha, beta):
    output = heard(seed, phones_of)
    scores = brute_force(output, lm_path, phones_of, alpha, beta)
    decoder = LexiconDecoder(
        ENCODER, lm_path, beam_width=100_000, alpha=alpha, beta=beta, label_weight=0.0, **EXACT
    )
    (found,) = decode(decoder, output)
    assert found.score == pytest.approx(
        max(scores.values()), rel=1e-6
    )  # KenLM's numbers are float32
    best = [text for text, score in scores.items() if score > max(scores.values()) - 1e-5]
    assert (
        found.text in best
    )  # of words that sound alike, without a language model, there are several
    assert alpha == 0 or len(best) == 1


@pytest.mark.parametrize("seed", range(4))
def test_the_labels_have_their_say_about_the_best(lm_path, phones_of, seed):
    output, weight = heard(seed, phones_of), 0.7
    scores = brute_force(output, lm_path, phones_of, 0.8, 1.5)
    for text in scores:
        tokens = torch.tensor([ENCODER.encode(text)], dtype=torch.int64)
        length = output["log_probs_length"]
        loss = torchs_losses(
            output["log_probs"].double(), length, tokens, torch.tensor([tokens.numel()])
        )
        scores[text] -= weight * loss.item()
    options = {"alpha": 0.8, "beta": 1.5, "label_weight": weight, "rescored": 10**6}
    (found,) = decode(
        LexiconDecoder(ENCODER, lm_path, beam_width=100_000, **options, **EXACT), output
    )
    assert found.text == max(scores, key=scores.get)
    assert found.score == pytest.approx(scores[found.text], rel=1e-5)


def test_narrow_limits_find_the_same_in_what_was_said_clearly(lm_path, phones_of):
    output = heard(0, phones_of, frames=60, sharp=0.1)
    phones = phones_of(["i night a knight"])[0][0].tolist()
    for i in range(60):
        output["phone_log_probs"][
            0, i, phones[i // 5] if i % 5 == 2 and i // 5 < len(phones) else 0
        ] += 9
    output["phone_log_probs"] = output["phone_log_probs"].log_softmax(-1)
    narrow = LexiconDecoder(ENCODER, lm_path, beam_width=12, label_weight=0.0)
    wide = LexiconDecoder(
        ENCODER, lm_path, beam_width=2000, label_weight=0.0, **EXACT | {"beam_prune_logp": -60}
    )
    found, exact = decode(narrow, output)[0], decode(wide, output)[0]
    assert phones_of([found.text])[0][0].tolist() == phones
    assert found.text == exact.text
    assert found.score == pytest.approx(exact.score, abs=0.1)


def test_a_batch_is_its_utterances_in_any_number_of_processes(lm_path, phones_of):
    alone = [heard(seed, phones_of, frames) for seed, frames in ((1, 9), (2, 5), (3, 7))]
    pad = torch.nn.utils.rnn.pad_sequence
    together = {
        name: pad([one[name][0] for one in alone], batch_first=True, padding_value=3.0)
        for name in ("phone_log_probs", "log_probs")
    } | {"log_probs_length": torch.tensor([9, 5, 7])}
    decoder = LexiconDecoder(ENCODER, lm_path)
    expected = [decode(decoder, one)[0] for one in alone]
    assert decode(decoder, together) == expected
    shared = LexiconDecoder(ENCODER, lm_path, processes=2)
    assert decode(shared, together) == expected
    shared._workers.close()


def test_only_what_forks_decodes_one_utterance_before(lm_path, phones_of, monkeypatch):
    decoder, decoded = LexiconDecoder(ENCODER, lm_path, processes=2), []
    search = decoder._decode
    monkeypatch.setattr(decoder, "_decode", lambda task: decoded.append(task) or search(task))
    one = heard(1, phones_of, 5)
    two = {name: torch.cat([value, value]) for name, value in one.items()}
    decode(decoder, one)
    assert len(decoded) == 1  # by itself: no process is made
    with monkeypatch.context() as patch:
        patch.setattr("asrlib.decoding.worker_pool.can_fork", lambda: False)
        decode(decoder, two)
    assert len(decoded) == 3  # in a worker, which makes none
    decode(decoder, two)
    decode(decoder, two)
    assert len(decoded) == 4  # what the pool's processes inherit
    decoder._workers.close()


def test_weights_set_between_calls_are_those_of_a_new_decoder(lm_path, phones_of):
    output = heard(4, phones_of, frames=12)
    decoder, prior = LexiconDecoder(ENCODER, lm_path), [1 / P] * (P - 1) + [0.5]
    decoder.label_prior = prior
    for alpha, beta, gamma, weight in [(0.2, 0.0, 0.5, 0.0), (2.0, 3.0, 0.0, 1.0)]:
        decoder.alpha, decoder.beta = alpha, beta
        decoder.prior_weight, decoder.label_weight = gamma, weight
        options = {"alpha": alpha, "beta": beta, "label_prior": prior}
        new = LexiconDecoder(ENCODER, lm_path, prior_weight=gamma, label_weight=weight, **options)
        assert decode(decoder, output) == decode(new, output)


def test_blanks_that_are_sure_are_passed_over(lm_path, phones_of):
    output = heard(6, phones_of, frames=9)
    blank = torch.full((1, 3, P), -20.0)
    blank[..., 0] = 0.0
    longer = output["phone_log_probs"].clone()
    longer = torch.cat([longer[:, :4], blank.log_softmax(-1), longer[:, 4:]], dim=1)
    output = {
        "phone_log_probs": longer,
        "log_probs": torch.zeros(1, 12, len(ENCODER)).log_softmax(-1),
        "log_probs_length": torch.tensor([12]),
    }
    options = {
        "label_weight": 0.0,
        "token_min_logp": -50.0,
        "beam_prune_logp": -80.0,
        "beam_width": 5000,
    }
    found = [
        decode(LexiconDecoder(ENCODER, lm_path, blank_skip_threshold=skip, **options), output)[0]
        for skip in (0.999, 1.0)
    ]
    assert found[0].text == found[1].text
    assert found[0].score == pytest.approx(found[1].score, abs=1e-4)


def test_the_labels_of_the_text_are_dated_where_they_are_heard(lm_path, phones_of):
    output = heard(0, phones_of, frames=40)
    for labels in (ENCODER, made_by_hand()):
        output["log_probs"] = torch.zeros(1, 40, len(labels)).log_softmax(-1)
        (found,) = LexiconDecoder(labels, lm_path)(
            output["phone_log_probs"], torch.tensor([40]), output["log_probs"]
        )
        assert labels.decode(found.tokens).split() == found.text.split()
        assert len(found.frames) == len(found.tokens)
        assert found.frames == sorted(found.frames)
        assert all(0 <= frame < 40 for frame in found.frames)


def test_nothing_heard_is_nothing_said(lm_path):
    decoder = LexiconDecoder(ENCODER, lm_path)
    for frames in (0, 3):
        phones = torch.full((1, frames, P), -30.0)
        phones[..., 0] = 0.0
        labels = torch.zeros(1, frames, len(ENCODER)).log_softmax(-1)
        (found,) = decoder(phones, torch.tensor([frames]), labels)
        assert (found.text, found.tokens, found.frames) == ("", [], [])
    impossible = torch.full((1, 3, P), -math.inf)
    assert decoder(impossible, torch.tensor([3]), labels)[0].text == ""


def test_words_that_sound_alike_are_one_group():
    phones = Pronouncer()
    names = ["<unk>", *WORDS]
    alone = np.array([-9.0, *(-1.0 - i for i in range(len(WORDS)))])
    found = pronunciations(names, alone, lexicon_of(WORDS))
    groups = [
        {names[word] for word in found.words[start:end]}
        for start, end in itertools.pairwise(found.starts)
    ]
    assert {"knight", "night"} in groups
    assert {"eye", "i"} in groups
    assert set().union(*groups) == set(WORDS)
    assert sum(map(len, groups)) == len(WORDS)
    assert found.ahead[0] == -1.0
    assert found.trie["letter"].max() == max(map(max, phones.words(WORDS)))


@pytest.mark.parametrize("name", ["words.tsv", "words.tsv.gz"])
def test_a_lexicon_in_a_file_takes_the_place_of_espeak(
    lm_path, phones_of, tmp_path, monkeypatch, name
):
    assert write_lexicon_of(lm_path, tmp_path / name) == len(WORDS)
    assert read_lexicon(tmp_path / name) == lexicon_of(WORDS)
    output = heard(3, phones_of, frames=20)
    expected = decode(LexiconDecoder(ENCODER, lm_path), output)
    monkeypatch.setattr("asrlib.text.phones.in_a_process", lambda *_: pytest.fail("espeak-ng"))
    assert decode(LexiconDecoder(ENCODER, lm_path, tmp_path / name), output) == expected
    write_lexicon(tmp_path / name, {"a": [36], "elsewhere": [1, 2]})
    assert set(
        decode(LexiconDecoder(ENCODER, lm_path, tmp_path / name), output)[0].text.split()
    ) <= {"a"}
    write_lexicon(tmp_path / name, {"elsewhere": [1, 2]})
    with pytest.raises(ValueError, match="none of the language model's words"):
        LexiconDecoder(ENCODER, lm_path, tmp_path / name)


def test_a_word_may_be_said_in_several_ways(lm_path, phones_of, tmp_path):
    i, a = (phones_of.words([word])[0] for word in ("eye", "a"))
    write_lexicon(tmp_path / "one.tsv", {"knight": i})
    said = (tmp_path / "one.tsv").read_text()
    write_lexicon(tmp_path / "two.tsv", {"knight": a})
    both = f"\ufeff{said}\n \n{(tmp_path / 'two.tsv').read_text()}"  # as an editor may leave it
    (tmp_path / "both.tsv").write_text(both, "utf-8")
    assert read_lexicon(tmp_path / "both.tsv") == {"knight": [i, a]}
    output, options = heard(2, phones_of), {"label_weight": 0.0, "beam_width": 1000, **EXACT}
    scores = [
        decode(LexiconDecoder(ENCODER, lm_path, tmp_path / name, **options), output)[0].score
        for name in ("one.tsv", "two.tsv", "both.tsv")
    ]
    assert scores[2] >= max(scores[:2])


@pytest.mark.parametrize(
    "content", [b"word", b"word\t", b"\tp", b"word\tp q7", b"\x1f\x8b cut", b"\xff\tp"]
)
def test_a_file_that_is_no_lexicon_is_refused_by_name(tmp_path, content):
    (tmp_path / "words.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=r"words\.tsv"):
        read_lexicon(tmp_path / "words.tsv")


def test_words_that_the_labels_cannot_spell_are_never_found(lm_path, phones_of, tmp_path):
    odd = tmp_path / "odd.arpa"
    odd.write_text(lm_path.read_text().replace("knight", "9-i"))
    night = phones_of.words(["night"])[0]
    write_lexicon(tmp_path / "words.tsv", {"9-i": night, "night": night})
    decoder = LexiconDecoder(ENCODER, odd, tmp_path / "words.tsv")
    assert {decoder.lm.names[word] for word in decoder._rules.words} == {"night"}


def test_a_line_that_comes_twice_counts_once(lm_path, phones_of, tmp_path):
    write_lexicon(tmp_path / "once.tsv", dict(zip(WORDS, phones_of.words(WORDS), strict=True)))
    (tmp_path / "twice.tsv").write_text((tmp_path / "once.tsv").read_text() * 2)
    once, twice = (
        LexiconDecoder(ENCODER, lm_path, tmp_path / name) for name in ("once.tsv", "twice.tsv")
    )
    assert twice._rules.words.tolist() == once._rules.words.tolist()


def test_a_sure_phone_with_which_no_word_goes_on_is_passed_over(lm_path, phones_of):
    """Else all that comes after it would be lost."""
    output = outputs_of(phones_of.words(["night"])[0], 40)
    before = decode(LexiconDecoder(ENCODER, lm_path, label_weight=0.0), output)[0]
    zh = 1 + PHONES.index("ʒ")
    assert not any(zh in phones for phones in phones_of.words(WORDS))
    output["phone_log_probs"][0, 3] = -30.0
    output["phone_log_probs"][0, 3, zh] = 0.0
    after = decode(LexiconDecoder(ENCODER, lm_path, label_weight=0.0), output)[0]
    assert before.text in ("night", "knight")
    assert after.text == before.text
    assert after.score == pytest.approx(before.score - 30, abs=1)


def outputs_of(phones, frames):
    """Each phone for a frame, from the fifth on, with three blanks between."""
    said = torch.full((1, frames, P), -9.0)
    said[..., 0] = 0.0
    for i, phone in enumerate(phones):
        said[0, 5 + 4 * i, 0], said[0, 5 + 4 * i, phone] = -9.0, 0.0
    return {
        "phone_log_probs": said.log_softmax(-1),
        "log_probs": torch.zeros(1, frames, len(ENCODER)).log_softmax(-1),
        "log_probs_length": torch.tensor([frames]),
    }


def test_what_it_cannot_read_is_an_error_that_says_why(lm_path, phones_of):
    output = heard(0, phones_of)
    decoder = LexiconDecoder(ENCODER, lm_path)
    with pytest.raises(ValueError, match="loss=phones"):
        decode(decoder, {name: output[name] for name in ("log_probs", "log_probs_length")})
    with pytest.raises(ValueError, match="phones, expected"):
        decode(decoder, output | {"phone_log_probs": output["phone_log_probs"][..., 1:]})
    with pytest.raises(ValueError, match="labels, expected"):
        decode(decoder, output | {"log_probs": output["log_probs"][..., 1:]})
    output["phone_log_probs"][0, 2, 3] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        decode(decoder, output)
    output = heard(0, phones_of)
    output["log_probs"][0, 2, 3] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        decode(decoder, output)
    output = heard(0, phones_of)
    assert decode(GreedyDecoder(ENCODER), output)  # which reads the labels alone


@pytest.mark.parametrize(
    "wrong",
    [
        {"label_weight": -1.0},
        {"rescored": 0},
        {"beam_width": 0},
        {"alpha": -1.0},
        {"prior_weight": 0.5},
        {"blank_skip_threshold": 0.0},
        {"label_prior": [0.5, 0.5]},
        {"processes": 0},
    ],
)
def test_an_option_that_makes_no_sense_is_refused(lm_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).partition("_")[0]):
        LexiconDecoder(ENCODER, lm_path, **wrong)
