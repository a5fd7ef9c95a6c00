"""BPE: youtokentome's ids without youtokentome, losing nothing; and a training with it that resumes."""

import builtins
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asrlib import Recognizer
from asrlib.configs import compose
from asrlib.data.demo_text import sentences
from asrlib.decoding import LongForm
from asrlib.randomness import generator
from asrlib.text import ALPHABET, BLANK, BPETextEncoder, CTCTextEncoder, from_dict, learn, normalize
from asrlib.training import Inferencer, build_trainer
from tests.corpus import made_by_hand, tiny_overrides, write_parts

ROOT = Path(__file__).parents[1]
normalized = st.text(ALPHABET, max_size=30).map(normalize)


@pytest.fixture(scope="module")
def transcripts():
    return [normalize(sentence) for sentence in sentences(0, "train", words=4000)]


@pytest.fixture(scope="module")
def learned(transcripts):
    pytest.importorskip("youtokentome")
    return BPETextEncoder.train(transcripts, 256, dropout=0.1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("corpus"), train=20, dev=4, test=4)


def tiny_config(corpus, run_dir, *overrides):
    bpe = ["text_encoder=bpe", "text_encoder.vocabulary_size=36", "text_encoder.dropout=0.5"]
    return compose("train", *tiny_overrides(corpus, run_dir), *bpe, *overrides)


@pytest.mark.parametrize("vocabulary_size", [64, 128, 256, 512, 1024])
def test_ids_are_those_of_youtokentome(transcripts, vocabulary_size, monkeypatch):
    youtokentome = pytest.importorskip("youtokentome")
    train, trained = youtokentome.BPE.train, []
    spy = staticmethod(lambda **options: trained.append(train(**options)))
    monkeypatch.setattr(youtokentome.BPE, "train", spy)
    encoder = BPETextEncoder.train(transcripts, vocabulary_size)
    (theirs,) = trained
    assert len(encoder) == vocabulary_size
    assert encoder.pieces == ["", *theirs.vocab()[1:-1]]
    rng = generator("words")
    strange = ["".join(rng.choice(list(ALPHABET), rng.integers(1, 40))) for _ in range(500)]
    texts = [normalize(s) for s in sentences(1, "test", words=8000)][:500] + strange
    assert len(texts) == 1000
    assert [encoder.encode(text) for text in texts] == theirs.encode(texts)


@given(normalized, st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 9))
def test_decoding_what_was_encoded_gives_the_text_with_dropout_and_without(text, dropout, seed):
    encoder = made_by_hand(dropout)
    for ids in (encoder.encode(text), encoder.encode(text, generator(seed))):
        assert encoder.decode(ids) == text
        assert all(BLANK < i < len(encoder) for i in ids)


@given(normalized)
def test_learned_pieces_lose_nothing_either(learned, text):
    ids = learned.encode(text)
    assert learned.decode(ids) == text
    assert "".join(learned.pieces[i] for i in ids) == "".join("▁" + w for w in text.split())


def test_merges_apply_in_the_order_in_which_they_were_learned():
    encoder = made_by_hand()

    def pieces(text):
        return [encoder.pieces[i] for i in encoder.encode(text)]

    assert pieces("the thing") == ["▁the", "▁t", "h", "ing"]
    assert pieces("then he") == ["▁the", "n", "▁", "he"]
    assert pieces("") == []


def test_encoded_texts_are_much_shorter_than_their_characters(learned, transcripts):
    held_out = [normalize(sentence) for sentence in sentences(1, "test", words=2000)]
    for texts in (transcripts, held_out):
        assert sum(len(learned.encode(t)) for t in texts) < 0.55 * sum(map(len, texts))


def test_every_label_stands_in_the_pieces_and_the_blank_is_zero_and_empty(learned):
    assert len(learned) == len(learned.pieces) == len(set(learned.pieces)) == 256
    assert learned.pieces[BLANK] == ""
    assert not {"<PAD>", "<UNK>", "<BOS>", "<EOS>"} & set(learned.pieces)
    assert {learned.pieces[i][0] for i in learned.word_starts} == {"▁"}
    assert [learned.pieces[i] for i in learned.separators] == ["▁"]
    characters = CTCTextEncoder()
    assert characters.pieces == ["", *ALPHABET]
    assert characters.word_starts == set()


def test_greedy_paths_are_read_as_ctc_says(learned):
    ids = learned.encode("the doctor bought a new lamp")
    path = [label for i in ids for label in (i, i, BLANK)]
    assert learned.ctc_decode(path) == "the doctor bought a new lamp"


def test_words_are_separated_once_wherever_labels_start_words():
    encoder = made_by_hand()
    space = encoder.pieces.index("▁")
    the, he = encoder.pieces.index("▁the"), encoder.pieces.index("he")
    assert encoder.decode([he, space, space, the, he, space]) == "he thehe"


def test_characters_that_the_training_texts_lack_are_labels_as_well():
    pytest.importorskip("youtokentome")
    encoder = BPETextEncoder.train(["ab ab abab ba abba"] * 9, 32)
    assert encoder.decode(encoder.encode("jazz isn't quiz")) == "jazz isn't quiz"
    assert sorted(piece for piece in encoder.pieces if len(piece) == 1) == sorted(
        "▁" + ALPHABET[1:]
    )
    assert {"ab", "▁ab"} <= set(encoder.pieces)


def test_a_size_that_the_texts_or_the_alphabet_do_not_allow_is_an_error():
    pytest.importorskip("youtokentome")
    with pytest.raises(ValueError, match=r"give \d+ labels at most, not vocabulary_size=1024"):
        BPETextEncoder.train(["just a few words"], 1024)
    with pytest.raises(ValueError, match="vocabulary_size=28 is less than 29"):
        BPETextEncoder.train(["just a few words"], 28)
    assert len(BPETextEncoder.train(["just a few words"], 29).encode("few")) == len("▁few")


def test_texts_that_are_not_normalised_are_an_error():
    with pytest.raises(ValueError, match="'5É' in the training texts"):
        BPETextEncoder.train(["caf" + "É", "a 5"], 64)
    with pytest.raises(ValueError, match="'É' not in the alphabet"):
        made_by_hand().encode("caf" + "É")


def test_without_youtokentome_learning_says_how_to_install_it(monkeypatch):
    real = builtins.__import__

    def blocked(name, *args, **kwargs):
        if name == "youtokentome":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(ImportError, match=r"pip install --no-deps .*requirements-nodeps\.txt"):
        BPETextEncoder.train(["a b"], 64)


def test_dropout_depends_on_its_key_alone_and_needs_a_generator(learned):
    text = "the captain of the taxi didn't carry the wooden basket tomorrow"

    def draw(*key):
        return learned.encode(text, generator(*key, "bpe_dropout"))

    drawn = [draw(0, epoch, "utterance") for epoch in range(20)]
    assert drawn == [draw(0, epoch, "utterance") for epoch in range(20)]
    assert len({tuple(ids) for ids in drawn}) > 5
    assert draw(0, 1, "utterance") != draw(1, 1, "utterance") != draw(1, 1, "another")
    assert {learned.decode(ids) for ids in drawn} == {text}
    assert len(learned.encode(text)) < np.mean([len(ids) for ids in drawn])


def test_dropout_of_everything_gives_characters_and_of_nothing_the_usual_pieces():
    text = "the thing"
    all_dropped = made_by_hand(dropout=1).encode(text, generator(0))
    assert all_dropped == CTCTextEncoder().encode(f" {text}")
    assert made_by_hand(dropout=0).encode(text, generator(0)) == made_by_hand().encode(text)
    with pytest.raises(ValueError, match="no probability"):
        made_by_hand(dropout=1.1)


def test_a_single_merge_is_dropped_as_often_as_the_dropout_says():
    encoder, rng = made_by_hand(dropout=0.1), generator("often")
    dropped = sum(encoder.encode("he", rng) != encoder.encode("he") for _ in range(5000))
    assert dropped / 5000 == pytest.approx(0.1, abs=4 * np.sqrt(0.1 * 0.9 / 5000))


@given(normalized)
def test_an_encoder_comes_back_from_json(learned, text):
    again = from_dict(json.loads(json.dumps(learned.to_dict())))
    assert (again.pieces, again.options) == (learned.pieces, learned.options)
    assert again.encode(text) == learned.encode(text)
    assert again.encode(text, generator(1)) == learned.encode(text, generator(1))


def test_a_state_that_contradicts_itself_is_refused():
    state = made_by_hand().to_dict()
    state["pieces"][-1] = "ong"
    with pytest.raises(ValueError, match="contradict"):
        from_dict(state)
    with pytest.raises(ValueError, match="same text"):
        BPETextEncoder("ab", [(1, 2), (1, 2)])


def test_an_encoder_is_learned_by_its_kind():
    assert learn(["ab"], "char").to_dict() == CTCTextEncoder().to_dict()
    with pytest.raises(ValueError, match="'morse'"):
        learn(["ab"], "morse")


def test_encoding_decoding_and_loading_need_no_youtokentome():
    script = """
import json, sys
sys.modules["youtokentome"] = sys.modules["_youtokentome_cython"] = None  # importing them raises
from asrlib.text import from_dict
encoder = from_dict(json.load(sys.stdin))
print(encoder.decode(encoder.encode("the thing")))
"""
    state = json.dumps(made_by_hand().to_dict())
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, input=state, capture_output=True, text=True
    )
    assert done.stdout == "the thing\n", done.stderr


def gap(encoder, pieces):
    """Where LongForm cuts a window in whose frames these pieces are the most probable ("-": blank)."""
    labels = [encoder.pieces.index(piece.strip("-")) for piece in pieces]
    log_probs = torch.full((len(labels), len(encoder)), -9.0)
    log_probs[range(len(labels)), labels] = 0.0
    return LongForm(None, None, encoder)._gap(log_probs)


@pytest.mark.parametrize(
    ("pieces", "cut"),
    [
        # the widest gap is within a word, the next before "▁the"
        (["▁the", "-", "-", "-", "n", "-", "-", "▁the", "▁the", "-", "n"], 6),
        (["▁the", "-", "▁the", "n"], 1),  # of one frame, and the same piece again
        (["▁t", "-", "-", "▁", "-", "-", "h", "-", "-", "▁t", "h"], 3),  # "▁" alone is a space
        (["▁t", "-", "-", "-", "h", "-", "e"], 2),  # no gap between words at all
    ],
)
def test_long_recordings_are_cut_before_a_piece_that_starts_a_word(pieces, cut):
    assert gap(made_by_hand(), pieces) == cut


def test_long_recordings_are_cut_at_the_spaces_between_characters():
    assert gap(CTCTextEncoder(), [*"a---b--", " ", "-", "c"]) == 7


def test_items_of_training_drop_merges_by_epoch_and_those_of_dev_do_not(corpus, tmp_path):
    pytest.importorskip("youtokentome")
    trainer = build_trainer(tiny_config(corpus, tmp_path))
    encoder, seed = trainer.text_encoder, trainer.seed
    dataset = trainer.train_loader.dataset
    assert len(encoder) == 36
    for epoch in (0, 1):
        for i, utterance in enumerate(dataset.utterances):
            rng = generator(seed, epoch, utterance.id, "bpe_dropout")
            assert list(dataset[epoch, i].tokens) == encoder.encode(utterance.text, rng)
    assert any(dataset[0, i].tokens != dataset[1, i].tokens for i in range(len(dataset)))
    dev = trainer.val_loader.dataset
    for i, utterance in enumerate(dev.utterances):
        assert list(dev[1, i].tokens) == encoder.encode(utterance.text)


def test_a_run_that_is_cut_before_its_first_checkpoint_keeps_its_labels(
    corpus, tmp_path, monkeypatch
):
    pytest.importorskip("youtokentome")
    first = build_trainer(tiny_config(corpus, tmp_path))
    monkeypatch.setattr(BPETextEncoder, "train", lambda *_: pytest.fail("learned anew"))
    again = build_trainer(tiny_config(corpus, tmp_path))
    assert again.text_encoder.to_dict() == first.text_encoder.to_dict()


def test_a_training_resumes_with_the_labels_it_began_with_and_inference_reads_them(
    corpus, tmp_path, monkeypatch
):
    pytest.importorskip("youtokentome")
    first = build_trainer(tiny_config(corpus, tmp_path / "run"))
    assert first.train().finished
    (tmp_path / "run/text_encoder.json").unlink()  # checkpoints alone are enough to go on
    monkeypatch.setattr(BPETextEncoder, "train", lambda *_: pytest.fail("learned anew"))
    again = build_trainer(tiny_config(corpus, tmp_path / "run"))
    assert again.text_encoder.to_dict() == first.text_encoder.to_dict()
    assert again.train_loader.dataset.text_encoder is again.text_encoder
    with pytest.raises(ValueError, match=r"(?s)vocabulary_size: 36 then, 40 now.*another run_dir"):
        build_trainer(tiny_config(corpus, tmp_path / "run", "text_encoder.vocabulary_size=40"))
    with pytest.raises(ValueError, match=r"(?s)kind: '?bpe'? then, '?char'? now.*another run_dir"):
        build_trainer(
            compose("train", *tiny_overrides(corpus, tmp_path / "run"), "text_encoder=char")
        )
    inference = compose(
        "inference",
        "datasets=an4",
        f"datasets.root={corpus}",
        f"inferencer.from_pretrained={tmp_path / 'run'}",
        f"inferencer.save_path={tmp_path / 'out'}",
        "inferencer.num_workers=0",
    )
    assert Inferencer(inference).run().errors.words.reference > 0
    assert len(list((tmp_path / "out").iterdir())) == 4
    recognizer = Recognizer.from_pretrained(tmp_path / "run", device="cpu")
    assert recognizer.text_encoder.pieces == first.text_encoder.pieces
