"""Phones: how texts are pronounced, and the loss that teaches them."""

import json
import string
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("espeakng_loader")

from asrlib.configs import compose
from asrlib.model import Conformer, CTCLoss, JointLoss
from asrlib.model.losses import torchs_losses
from asrlib.text import CTCTextEncoder
from asrlib.text.phones import PHONES, Pronouncer
from asrlib.training import Inferencer, build_trainer, train
from tests.corpus import arpa, tiny_overrides, write_parts

P = 1 + len(PHONES)
ENCODER = CTCTextEncoder()


@pytest.fixture(scope="module")
def pronounce():
    return Pronouncer()


def spoken(pronounce, text):
    ids, lengths = pronounce([text])
    return " ".join(PHONES[i - 1] for i in ids[0, : lengths[0]].tolist())


def test_words_are_pronounced_and_not_spelled(pronounce):
    assert spoken(pronounce, "hello") == "h ə l oʊ"
    assert spoken(pronounce, "church judge") == "tʃ ɚ tʃ dʒ ʌ dʒ"
    assert spoken(pronounce, "knight their") == spoken(pronounce, "night there")
    assert spoken(pronounce, "don't") != spoken(pronounce, "dont a")


def test_texts_of_a_batch_are_padded_with_blanks(pronounce):
    ids, lengths = pronounce(["a", "", "a church"])
    assert lengths.tolist() == [1, 0, 4]
    assert ids.shape == (3, 4)
    assert (ids[0, 1:] == 0).all()
    assert (ids[1] == 0).all()
    assert ids[2, 0] == ids[0, 0]
    assert [x.shape for x in pronounce([])] == [(0, 0), (0,)]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.text(string.ascii_lowercase + "'", min_size=1), min_size=1, max_size=20))
def test_anything_that_may_be_a_word_has_phones_of_the_list(pronounce, words):
    ids, lengths = pronounce([" ".join(words)])
    assert ids.shape[1] == lengths[0]
    assert ((ids >= 1) & (ids < P)).all()


def test_what_was_pronounced_once_is_kept(monkeypatch):
    pronounce = Pronouncer()
    first = pronounce(["one two"])
    monkeypatch.setattr("asrlib.text.phones.in_a_process", lambda *_: pytest.fail("asked again"))
    torch.testing.assert_close(pronounce(["one two"]), first)


def test_without_espeak_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r"requirements-dev\.txt"):
        Pronouncer()(["a word"])


def make_batch(texts, frames, views=1, seed=0):
    """``views`` of each text, with outputs drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    encoded = [torch.tensor(ENCODER.encode(text), dtype=torch.int64) for text in texts]
    logits = [
        torch.randn(views * len(texts), max(frames), n, generator=generator, requires_grad=True)
        for n in (len(ENCODER), P)
    ]
    return {
        "text": texts,
        "text_encoded": torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True),
        "text_encoded_length": torch.tensor([len(t) for t in encoded]),
        "log_probs": logits[0].log_softmax(-1),
        "log_probs_length": torch.tensor(frames * views),
        "phone_logits": logits[1],
        "phone_log_probs": logits[1].log_softmax(-1),
    }


@pytest.mark.parametrize("views", [1, 2])
def test_the_loss_adds_ctc_of_the_phones(pronounce, views):
    batch = make_batch(["the knight", "a", "too long for it"], [20, 3, 5], views)
    phones, lengths = pronounce(batch["text"][:2])  # the third has no path
    expected = 0.0
    for rows in batch["phone_log_probs"].split(3):
        losses = torchs_losses(rows[:2], batch["log_probs_length"][:2], phones, lengths)
        expected = expected + losses.sum() / views
    with_phones, without = CTCLoss(phones=0.4)(batch), CTCLoss()(batch)
    torch.testing.assert_close(with_phones.total, without.total + 0.4 * expected)
    torch.testing.assert_close(with_phones.parts["phones"], expected.detach())
    assert with_phones.infeasible == without.infeasible == [2]
    assert with_phones.count == without.count
    with_phones.total.backward()
    gradient = batch["phone_logits"].grad.unflatten(0, (views, 3))
    assert gradient.isfinite().all()
    assert gradient[:, 0].any()
    assert not gradient[:, 2].any()
    assert not gradient[:, 1, 3:].any()


def test_a_text_that_is_longer_said_than_spelled_is_left_out_of_the_phones_alone(pronounce):
    batch = make_batch(["xx"], [3])  # two letters with a blank between; "ɛ k s ɛ k s"
    loss = CTCLoss(phones=0.4)(batch)
    assert loss.parts["phones"] == 0
    assert loss.infeasible == []
    torch.testing.assert_close(loss.total, CTCLoss()(batch).total)


def test_phones_need_a_model_that_makes_them():
    batch = make_batch(["a"], [5])
    del batch["phone_log_probs"]
    with pytest.raises(ValueError, match=r"model\.phone_layer"):
        CTCLoss(phones=0.1)(batch)
    with pytest.raises(ValueError, match=r"loss\.phones"):
        CTCLoss(phones=-0.1)
    with pytest.raises(ValueError, match=r"loss\.phones"):
        JointLoss(attention=1.0, phones=0.1)


def test_blocks_above_the_phone_layer_are_given_what_it_found():
    torch.manual_seed(0)
    model = Conformer(8, 5, "xxs", dropout=0.0, intermediate_layers=[1], phone_layer=1).eval()
    x, length = torch.randn(2, 8, 60), torch.tensor([60, 32])
    before = model(x, length)
    assert before["phone_log_probs"].shape == (2, 15, P)
    torch.testing.assert_close(before["phone_log_probs"].exp().sum(-1), torch.ones(2, 15))
    with torch.no_grad():
        model.phone_head.bias[3] += 5
    after = model(x, length)
    assert not torch.allclose(after["log_probs"], before["log_probs"])
    torch.testing.assert_close(after["intermediate_log_probs"], before["intermediate_log_probs"])
    with pytest.raises(ValueError, match="phone layer"):
        Conformer(8, 5, "xxs", phone_layer=2)


CONFORMER = ["model=conformer", "model.size=xxs", "model.intermediate_layers=[1]"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("corpus"), train=4, dev=2, test=2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([*CONFORMER, "loss=phones"], "phone_layer"),
        (["loss=phones"], "phone_layer"),
        ([*CONFORMER, "decoder=lexicon", "decoder.lm_path=LM"], "decoder=greedy"),
        (
            [*CONFORMER, "model.phone_layer=1", "loss=inter_ctc"],
            "does not train the model's phones",
        ),
    ],
)
def test_phones_and_what_teaches_them_come_together(corpus, tmp_path, options, told):
    config = compose("train", *tiny_overrides(corpus, tmp_path), *options)
    with pytest.raises(ValueError, match=told):
        build_trainer(config)
    if "does not train" in told:
        frozen = [*options, "trainer.freeze=[phone_head,from_phones]"]
        build_trainer(compose("train", *tiny_overrides(corpus, tmp_path), *frozen))


def test_a_training_learns_phones_logs_their_loss_and_can_be_searched_by_them(corpus, tmp_path):
    pytest.importorskip("kenlm")
    options = [*CONFORMER, "model.phone_layer=1", "loss=phones", "trainer.epochs=2"]
    assert train(compose("train", *tiny_overrides(corpus, tmp_path / "run"), *options)).finished
    rows = [json.loads(x) for x in (tmp_path / "run/logs/metrics.jsonl").read_text().splitlines()]
    assert any("loss_phones_train" in row for row in rows)
    heard = [row["loss_phones_val"] for row in rows if "loss_phones_val" in row]
    assert heard[-1] < heard[0]
    texts = [path.read_text().lower() for path in corpus.rglob("*.txt")]
    (tmp_path / "lm.arpa").write_text(arpa(texts))
    inference = compose(
        "inference",
        "datasets=an4",
        f"datasets.root={corpus}",
        f"inferencer.from_pretrained={tmp_path / 'run'}",
        "inferencer.num_workers=0",
        "decoder=lexicon",
        f"decoder.lm_path={tmp_path / 'lm.arpa'}",
        "decoder.processes=1",
    )
    found = Inferencer(inference).run().hypotheses
    assert len(found) == 2
    assert {word for h in found.values() for word in h.text.split()} <= {*" ".join(texts).split()}
