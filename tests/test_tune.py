"""Tuning finds the true minimum, on dev data only, and inference decodes with just what it found."""

import csv
import itertools
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from omegaconf import OmegaConf

from asrlib import Recognizer
from asrlib.build import build, build_encoder, build_features
from asrlib.checkpoint import find_checkpoint, save_checkpoint
from asrlib.configs import compose
from asrlib.data import SAMPLE_RATE
from asrlib.decoding.cached import LogProbs, fingerprint
from asrlib.decoding.dev import halves_by_speaker
from asrlib.decoding.grid import Grid, Point, Scored
from asrlib.decoding.longform import WINDOW_SECONDS
from asrlib.decoding.pronunciations import write_lexicon_of
from asrlib.decoding.tune import tune
from asrlib.metrics import ErrorRate
from asrlib.model import AcousticModel
from asrlib.result import load_results
from asrlib.text import CTCTextEncoder
from asrlib.text.phones import PHONES
from asrlib.training import Inferencer
from tests.corpus import LETTER_SECONDS, arpa, random_text, say, write_custom_dir
from tests.signals import hiss

for library in ("numba", "kenlm"):
    pytest.importorskip(library)

FRAME = int(LETTER_SECONDS * SAMPLE_RATE) // 4  # the last of a letter's four is almost silent
ENCODER = CTCTextEncoder("abcde ")
COUNT = 14


def hear(model, audio, audio_length):
    """An ear for the language of tones instead of a model: right labels, under fixed noise."""
    hear.calls += 1
    frames = audio[:, : audio.shape[1] // FRAME * FRAME].unflatten(1, (-1, FRAME))
    time = torch.arange(FRAME) / SAMPLE_RATE
    pitches = torch.tensor([200 + 100 * i for i in range(5)])
    waves = torch.exp(2j * torch.pi * pitches[:, None] * time)
    loudness = (frames.cfloat() @ waves.T).abs() * (2 / FRAME / 0.3)  # 1 for the letter that sounds
    height, letter = loudness.max(-1)
    label = torch.where(height > 0.5, letter + 1, torch.where(height > 0.1, 0, 6))
    noise = torch.randn(1000, 7, generator=torch.Generator().manual_seed(5))[: label.shape[1]]
    logits = 5.0 * torch.nn.functional.one_hot(label, 7) + 2.4 * noise
    logits += 1e-3 * model.encoder.state_dict()[next(iter(model.encoder.state_dict()))].mean()
    return {"log_probs": logits.log_softmax(-1), "log_probs_length": audio_length // FRAME}


def save_run(folder, seed=0):
    """``folder`` as a run whose best checkpoint is untrained."""
    config = compose("train", "model=mlp", "model.width=8", "datasets.root=anywhere")
    torch.manual_seed(seed)
    features = build_features(config)
    model = AcousticModel(features, build_encoder(config, features, ENCODER))
    state = {"command": "python train.py", "train_seconds": 0.0, "audio_seconds": 0.0}
    save_checkpoint(folder / "checkpoints/best", model, config, ENCODER, state)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """AN4's layout with dev and test, and a language model that knows dev's words."""
    folder = tmp_path_factory.mktemp("corpus")
    for part in ("dev", "test"):
        write_custom_dir(folder / part, COUNT, seed=part)
    (folder / "lm.arpa").write_text(arpa(random_text("dev", i) for i in range(COUNT)))
    return folder


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    hear.calls = 0
    monkeypatch.setattr(AcousticModel, "forward", hear)
    monkeypatch.setattr(AcousticModel, "samples_per_frame", FRAME)
    save_run(tmp_path / "run")
    return tmp_path / "run"


def configure_tuning(corpus, run_dir, *overrides):
    return compose(
        "tune",
        "datasets=an4",
        f"datasets.root={corpus}",
        f"tune.from_pretrained={run_dir}",
        f"decoder.lm_path={corpus / 'lm.arpa'}",
        "decoder.beam_width=8",
        "tune.alphas=[0,0.4,0.8,2]",
        "tune.betas=[-2,0,2]",
        "tune.refine=0",
        "tune.processes=1",
        "tune.num_workers=0",
        "tune.device=cpu",
        *overrides,
    )


def run_tuning(corpus, run_dir, *overrides):
    return tune(configure_tuning(corpus, run_dir, *overrides))


def infer(corpus, run_dir, *overrides):
    inferencer = Inferencer(
        compose(
            "inference",
            "datasets=an4",
            f"datasets.root={corpus}",
            f"inferencer.from_pretrained={run_dir}",
            "inferencer.part=val",
            "inferencer.show=0",
            "inferencer.num_workers=0",
            "inferencer.device=cpu",
            *overrides,
        )
    )
    return inferencer, inferencer.run()


def edits(found):
    return {point: scored.edits.tolist() for point, scored in found.grid.scored.items()}


def brute_force(corpus, run_dir):
    """{(alpha, beta): errors} of the grid, each by a whole inference of its own."""
    lm = ["decoder=beam_lm", f"decoder.lm_path={corpus / 'lm.arpa'}", "decoder.beam_width=8"]
    return {
        (alpha, beta): infer(
            corpus, run_dir, *lm, f"decoder.alpha={alpha}", f"decoder.beta={beta}"
        )[1].errors
        for alpha, beta in itertools.product([0, 0.4, 0.8, 2], [-2, 0, 2])
    }


def only(errors, speakers):
    return ErrorRate(u for u in errors.utterances if u.speaker in speakers)


def test_the_winner_is_the_minimum_of_inferences_with_every_weight(corpus, run_dir):
    found = run_tuning(corpus, run_dir)
    errors = brute_force(corpus, run_dir)
    assert len({e.wer for e in errors.values()}) > 5  # else any winner would do
    least = min(errors, key=lambda at: (errors[at].wer, errors[at].cer, *at))
    assert found.best.point == (*least, 8, 0, 0)
    with (found.folder / "grid.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        expected = errors[float(row["alpha"]), float(row["beta"])].as_dict()
        for name in ("wer", "cer", "substitutions", "deletions", "insertions"):
            assert float(row[name]) == pytest.approx(expected[name])
    assert found.greedy == infer(corpus, run_dir)[1].errors.words
    assert found.best.sums()[0].total < found.greedy.total
    assert (found.folder / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_decoder_tuned_decodes_as_the_winner_did(corpus, run_dir):
    found = run_tuning(corpus, run_dir, "tune.refine=1")
    inferencer, evaluation = infer(corpus, run_dir, "decoder=tuned")
    assert (evaluation.errors.words, evaluation.errors.characters) == found.best.sums()
    assert inferencer.result(evaluation).decoder == "beam+lm"
    weights = inferencer.recognizer.decoder
    assert (weights.alpha, weights.beta, weights.beam_width) == found.best.point[:3]
    recognizer = Recognizer.from_pretrained(run_dir, "cpu", {"name": "tuned"})
    assert recognizer.decoder.alpha == found.best.point.alpha
    stored = OmegaConf.load(found.stored)
    assert stored.tuned.wer == pytest.approx(evaluation.errors.wer)
    assert stored.tuned.data == "an4 val"
    assert {"date", "commit", "command", "greedy_wer"} <= stored.tuned.keys()


def test_the_weight_of_the_prior_is_tuned_too_and_kept_with_what_was_measured(corpus, run_dir):
    few = ["tune.alphas=[0.8]", "tune.betas=[2]", "tune.prior_weights=[0.5,0,2]"]
    found = run_tuning(corpus, run_dir, *few)
    errors = {point.prior_weight: scored.sums() for point, scored in found.grid.scored.items()}
    assert len({words.total for words, _ in errors.values()}) == 3  # else any of them would do
    best = min(errors, key=lambda weight: errors[weight][0].rate)
    assert best == found.best.point.prior_weight > 0
    prior = OmegaConf.load(found.stored).decoder.label_prior
    assert len(prior) == len(ENCODER) and sum(prior) == pytest.approx(1, abs=1e-3)
    _, evaluation = infer(corpus, run_dir, "decoder=tuned")
    assert (evaluation.errors.words, evaluation.errors.characters) == found.best.sums()
    changed = ["+decoder.prior_weight=0", "+decoder.processes=1", "+decoder.beta=2"]
    inferencer, evaluation = infer(corpus, run_dir, "decoder=tuned", *changed)
    assert evaluation.errors.words == errors[0][0]
    assert inferencer.result(evaluation).decoder == "beam+lm, prior_weight=0"
    with pytest.raises(ValueError, match="lm divides no prior out"):
        run_tuning(corpus, run_dir, *few, "decoder=lm")


def test_phones_have_a_prior_of_their_own_and_the_labels_beside_them_a_weight(
    corpus, run_dir, monkeypatch
):
    pytest.importorskip("espeakng_loader")

    def hear_both(model, audio, audio_length):
        heard = hear(model, audio, audio_length)
        noise = torch.randn(1, 1000, 1 + len(PHONES), generator=torch.Generator().manual_seed(3))
        phones = noise[:, : heard["log_probs"].shape[1]].expand(len(audio), -1, -1)
        return heard | {"phone_log_probs": phones.log_softmax(-1)}

    monkeypatch.setattr(AcousticModel, "forward", hear_both)
    few = [
        "tune.alphas=[0.4]",
        "tune.betas=[0]",
        "tune.label_weights=[0,1,5]",
        "tune.prior_weights=[0.3]",
    ]
    lexicon = find_checkpoint(run_dir) / "words.tsv"
    write_lexicon_of(corpus / "lm.arpa", lexicon)
    found = run_tuning(corpus, run_dir, *few, "decoder=lexicon", f"decoder.lexicon_path={lexicon}")
    assert OmegaConf.load(found.stored).decoder.lexicon_path == "words.tsv"
    errors = {point.label_weight: scored.sums() for point, scored in found.grid.scored.items()}
    assert len({words.total for words, _ in errors.values()}) > 1  # else any of them would do
    assert errors[found.best.point.label_weight] == min(
        errors.values(), key=lambda sums: (sums[0].rate, sums[1].rate)
    )
    assert len(OmegaConf.load(found.stored).decoder.label_prior) == 1 + len(PHONES)
    for weight, sums in errors.items():
        changed = ["decoder=tuned", f"+decoder.label_weight={weight}", "+decoder.processes=1"]
        _, evaluation = infer(corpus, run_dir, *changed)
        assert (evaluation.errors.words, evaluation.errors.characters) == sums

    lexicon.unlink()
    with pytest.raises(FileNotFoundError, match=r"no lexicon at .*decoder\.lexicon_path"):
        infer(corpus, run_dir, "decoder=tuned")
    write_lexicon_of(corpus / "lm.arpa", corpus / "moved.tsv")
    _, evaluation = infer(
        corpus, run_dir, "decoder=tuned", f"decoder.lexicon_path={corpus / 'moved.tsv'}"
    )
    assert evaluation.errors.words == found.best.sums()[0]


def test_the_weight_of_labels_is_for_a_decoder_that_reads_phones(corpus, run_dir):
    few = ["tune.alphas=[0.8]", "tune.betas=[2]", "tune.label_weights=[0,1]"]
    with pytest.raises(ValueError, match="lexicon"):
        run_tuning(corpus, run_dir, *few)
    with pytest.raises(ValueError, match=r"tune\.label_weights"):
        run_tuning(corpus, run_dir, *few[:2], "tune.label_weights=[-1]", "decoder=lexicon")
    with pytest.raises(FileNotFoundError, match=r"decoder\.lexicon_path"):
        run_tuning(corpus, run_dir, *few, "decoder=lexicon", "decoder.lexicon_path=nowhere")
    with pytest.raises(ValueError, match="loss=phones"):  # as this run was not trained
        run_tuning(corpus, run_dir, *few, "decoder=lexicon")


def test_recordings_read_in_windows_are_decoded_as_in_inference(corpus, run_dir, tmp_path):
    shutil.copytree(corpus / "dev", tmp_path / "dev")
    text = " ".join(random_text("long", i) for i in range(40))
    soundfile.write(tmp_path / "dev/audio/long-s1-b.flac", say(text), SAMPLE_RATE)
    assert len(say(text)) > WINDOW_SECONDS * SAMPLE_RATE
    (tmp_path / "dev/transcriptions/long-s1-b.txt").write_text(text)
    found = run_tuning(tmp_path, run_dir, f"decoder.lm_path={corpus / 'lm.arpa'}")
    _, evaluation = infer(tmp_path, run_dir, "decoder=tuned")
    assert evaluation.errors.words.reference > len(text.split())
    assert (evaluation.errors.words, evaluation.errors.characters) == found.best.sums()


def test_the_model_is_asked_once_for_a_checkpoint_and_its_data(corpus, run_dir, tmp_path, capsys):
    first = run_tuning(corpus, run_dir)
    calls = hear.calls
    assert calls > 0
    again = run_tuning(corpus, run_dir, "tune.alphas=[0.4]", "decoder.beam_width=4")
    assert hear.calls == calls
    assert "those in" in capsys.readouterr().out
    assert again.grid.scored.keys().isdisjoint(first.grid.scored)
    shutil.rmtree(run_dir / "checkpoints")
    save_run(run_dir, seed=1)  # another checkpoint
    run_tuning(corpus, run_dir, "tune.alphas=[0.4]")
    assert hear.calls == 2 * calls
    shutil.copytree(corpus / "dev", tmp_path / "changed/dev")
    moved = [f"datasets.root={tmp_path / 'changed'}", "tune.alphas=[0.4]"]
    run_tuning(corpus, run_dir, *moved)  # other files
    assert hear.calls == 3 * calls
    path = next((tmp_path / "changed/dev/audio").iterdir())
    path.write_bytes(path.read_bytes() + b"\0")  # of the same name and duration
    run_tuning(corpus, run_dir, *moved)
    assert hear.calls == 4 * calls


def test_a_damaged_cache_is_made_anew(corpus, run_dir):
    before = run_tuning(corpus, run_dir)
    (cache,) = (run_dir / "tune").glob("*.safetensors")
    cache.write_bytes(cache.read_bytes()[:1000])
    assert edits(run_tuning(corpus, run_dir)) == edits(before)
    with pytest.raises(ValueError, match="another checkpoint"):
        LogProbs(cache, "another key")


def test_the_number_of_processes_changes_nothing(corpus, run_dir):
    few = ["tune.alphas=[0,0.8]", "tune.betas=[0]", "tune.refine=1", "tune.beam_widths=[1,8]"]
    alone = run_tuning(corpus, run_dir, *few)
    together = run_tuning(corpus, run_dir, *few, "tune.processes=2")
    assert edits(together) == edits(alone)
    assert together.best.point == alone.best.point
    narrow, wide = (alone.grid.scored[Point(0.8, 0, width)] for width in (1, 8))
    assert narrow.sums()[0].total > wide.sums()[0].total
    assert len(alone.grid.scored) > 4  # refined


def test_an_error_in_a_process_arrives(corpus, run_dir):
    bad = ["decoder.unk_score_offset=5", "tune.alphas=[0]", "tune.betas=[0]"]
    with pytest.raises(Exception, match="unk_score_offset 5: a finite number, 0 or less"):
        run_tuning(corpus, run_dir, "tune.processes=2", *bad)


@pytest.mark.parametrize(
    "overrides",
    [
        ["tune.part=test"],
        ["datasets.val.data_dir={corpus}/test"],
        ["datasets.val.data_dir={corpus}/dev/../TEST"],
        ["datasets.val.data_dir={corpus}/an4_test"],
        ["datasets.val.data_dir={corpus}/Tests"],
        ["datasets.val.data_dir={corpus}/test_other"],
        ["datasets.val.data_dir={corpus}/test2"],
        ["datasets=librispeech", "datasets.root={corpus}", "datasets.val.parts=[test-clean]"],
        ["datasets=librispeech", "datasets.root={corpus}", "datasets.val.parts=[dev,test-other]"],
        ["datasets=demo", "datasets.val.part=test"],
        ["datasets=manifest", "datasets.val.path={corpus}/test.jsonl"],
        ["datasets=manifest", "datasets.val.path={corpus}/dev.jsonl"],  # that lists test's files
        ["datasets.val.data_dir={corpus}/innocent"],  # a link to test
    ],
    ids=str,
)
def test_data_called_test_are_refused(corpus, run_dir, tmp_path, overrides):
    folder = tmp_path / "data"
    shutil.copytree(corpus, folder)
    line = json.dumps({"path": f"test/audio/{next((folder / 'test/audio').iterdir()).name}"})
    (folder / "dev.jsonl").write_text(line)
    (folder / "innocent").symlink_to(folder / "test")
    root = [] if overrides[0].startswith("datasets=") else [f"datasets.root={folder}"]
    overrides = [override.format(corpus=folder) for override in overrides]
    others = [
        f"tune.from_pretrained={run_dir}",
        f"decoder.lm_path={corpus / 'lm.arpa'}",
        "tune.device=cpu",
    ]
    datasets = [] if not root else ["datasets=an4"]
    with pytest.raises(ValueError, match="weights are chosen on dev"):
        tune(compose("tune", *datasets, *root, *others, *overrides))
    assert hear.calls == 0


def test_a_corpus_of_all_parts_may_be_called_by_all_of_them(corpus, run_dir, tmp_path):
    shutil.copytree(corpus, tmp_path / "corpus-train-dev-test" / "corpus")
    (tmp_path / "data").symlink_to(tmp_path / "corpus-train-dev-test" / "corpus")
    assert run_tuning(
        corpus, run_dir, f"datasets.root={tmp_path / 'data'}", "tune.alphas=[0.4]"
    ).best


def test_weights_that_no_search_can_use_are_refused(corpus, run_dir):
    with pytest.raises(ValueError, match=r"alpha -0\.5"):
        tune(configure_tuning(corpus, run_dir, "tune.alphas=[-0.5,0.5]"))


def test_data_without_texts_and_decoders_without_weights_are_refused(corpus, run_dir, tmp_path):
    shutil.copytree(corpus / "dev/audio", tmp_path / "mute/dev/audio")
    with pytest.raises(ValueError, match="no transcripts"):
        run_tuning(corpus, run_dir, f"datasets.root={tmp_path / 'mute'}")
    with pytest.raises(ValueError, match="no part val"):
        tune(compose("tune", "datasets=custom_dir", f"tune.from_pretrained={run_dir}",
                       "datasets.test.data_dir=x", f"decoder.lm_path={corpus}/lm.arpa"))  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"none\.arpa"):
        run_tuning(corpus, run_dir, "decoder.lm_path=none.arpa")
    for decoder in ("greedy", "beam", "tuned"):
        with pytest.raises(ValueError, match="no language model"):
            tune(compose("tune", f"decoder={decoder}", f"tune.from_pretrained={run_dir}"))


def surface(lowest_alpha, lowest_beta):
    """Scores whose WER is the distance from a point, in 1/1000."""

    def score(points):
        for point in points:
            distance = abs(point.alpha - lowest_alpha) + abs(point.beta - lowest_beta)
            errors = [round(100 * distance), 0, 0, 1000]
            yield Scored(point, np.array([[errors, errors]]), 0.0)

    return score


@pytest.mark.parametrize(
    ("alpha", "beta", "options"),
    [
        (0.5, 1, []),
        (9, 1, ["above it to tune.alphas"]),
        (0.5, -9, ["below it to tune.betas"]),
        (9, 9, ["above it to tune.alphas", "above it to tune.betas"]),
        (0, 1, ["language model does not help"]),
    ],
)
def test_a_winner_on_the_border_names_the_option_to_widen(alpha, beta, options):
    grid = Grid([0, 0.5, 1], [0, 1, 2], [8], surface(alpha, beta))
    warnings = grid.at_the_border(grid.best(refine=1).point)
    assert len(warnings) == len(options)
    assert all(option in warning for option, warning in zip(options, warnings, strict=True))


def test_refining_halves_the_steps_around_the_best_and_stays_inside():
    grid = Grid([0, 1, 2], [0, 1, 2], [8], surface(0.7, 2.5))
    assert grid.best().point[:2] == (1, 2)
    assert grid.best(refine=1).point[:2] == (0.5, 2)
    assert grid.best(refine=2).point[:2] == (0.75, 2)
    assert {p.beta for p in grid.scored} == {0, 1, 1.5, 1.75, 2}
    assert {p.alpha for p in grid.scored} == {0, 0.5, 0.75, 0.25, 1, 1.5, 2}


def test_ties_go_to_cer_then_to_the_narrower_beam_then_to_less_weight():
    def score(points):
        for point in points:
            good = (point.alpha, point.beam_width) in [(1, 16), (2, 8), (3, 8)]
            characters = 1 if good else 2
            counts = [[5, 0, 0, 10], [characters, 0, 0, 30]]
            yield Scored(point, np.array([counts]), 0.0)

    assert Grid([0, 1, 2, 3], [1, 0], [16, 8, 4], score).best().point == Point(2, 0, 8)


def test_speakers_are_halved_in_the_order_of_their_names():
    utterances = [SimpleNamespace(speaker=s) for s in "dbacabdde"]
    (one, other), swapped = halves_by_speaker(utterances)
    assert {utterances[i].speaker for i in one} == set("ace")
    assert {utterances[i].speaker for i in other} == set("bd")
    assert sorted([*one, *other]) == list(range(9))
    assert np.array_equal(swapped[0], other) and np.array_equal(swapped[1], one)


def test_cross_tuning_scores_everyone_once_with_weights_found_without_them(corpus, run_dir):
    rows = run_dir / "rows.json"
    found = run_tuning(corpus, run_dir, "tune.cross=true", f"tune.result_path={rows}")
    cross = json.loads((found.folder / "cross.json").read_text())
    errors, everyone = brute_force(corpus, run_dir), ErrorRate()
    for fold in cross["folds"]:
        assert not set(fold["tuned_on"]) & set(fold["scored_on"])
        own = {at: only(errors[at], fold["tuned_on"]) for at in errors}
        best = min(own, key=lambda at: (own[at].wer, own[at].cer, *at))
        assert (fold["alpha"], fold["beta"]) == best
        scored = only(errors[best], fold["scored_on"])
        assert fold["wer"] == pytest.approx(scored.wer)
        everyone.utterances += scored.utterances
    one, other = cross["folds"]
    assert (one["alpha"], one["beta"]) != (other["alpha"], other["beta"])  # or this shows little
    assert len({u.id for u in everyone.utterances}) == len(everyone.utterances) == COUNT
    assert {name: cross[name] for name in everyone.as_dict()} == pytest.approx(everyone.as_dict())
    [row] = load_results(rows)
    assert (row.wer, row.words) == (cross["wer"], cross["words"])
    assert row.decoder == f"{cross['decoder']}, cross-tuned"


def test_no_row_is_written_of_data_that_the_weights_were_chosen_on(corpus, run_dir):
    with pytest.raises(ValueError, match=r"tune\.cross=true"):
        run_tuning(corpus, run_dir, f"tune.result_path={run_dir / 'rows.json'}")


def test_cross_tuning_needs_two_speakers(corpus, run_dir):
    with pytest.raises(ValueError, match="two or more speakers"):
        run_tuning(corpus, run_dir, "tune.cross=true", "datasets.val.speaker_pattern=null")


def test_decoder_tuned_says_what_is_missing(corpus, run_dir, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m asrlib\.decoding\.tune"):
        infer(corpus, run_dir, "decoder=tuned")
    shutil.copy(corpus / "lm.arpa", tmp_path / "lm.arpa")
    lm = f"decoder.lm_path={tmp_path / 'lm.arpa'}"
    few = ["tune.alphas=[0.4]", "tune.betas=[0]"]
    run_tuning(corpus, run_dir, *few, lm)
    found = run_tuning(corpus, run_dir, *few, lm, "decoder.name=second")
    with pytest.raises(ValueError, match=r"beam\+lm, second"):
        infer(corpus, run_dir, "decoder=tuned")
    infer(corpus, run_dir, "decoder=tuned", "decoder.which=beam+lm")
    (tmp_path / "lm.arpa").unlink()
    chosen = ["decoder=tuned", "decoder.which=second"]
    with pytest.raises(FileNotFoundError, match=r"lm\.arpa.*decoder\.lm_path=FILE"):
        infer(corpus, run_dir, *chosen)
    elsewhere = f"decoder.lm_path={corpus / 'lm.arpa'}"
    assert infer(corpus, run_dir, *chosen, elsewhere)[1].errors.words == found.best.sums()[0]


def test_a_language_model_inside_the_checkpoint_moves_with_it(
    corpus, run_dir, tmp_path, monkeypatch
):
    checkpoint = find_checkpoint(run_dir)
    shutil.copy(corpus / "lm.arpa", checkpoint / "lm.arpa")
    few = ["tune.alphas=[0.4]", "tune.betas=[0]", f"decoder.lm_path={checkpoint / 'lm.arpa'}"]
    found = run_tuning(corpus, run_dir, *few)
    checkpoint.rename(tmp_path / "moved")
    monkeypatch.chdir(corpus)
    _, evaluation = infer(corpus, tmp_path / "moved", "decoder=tuned")
    assert evaluation.errors.words == found.best.sums()[0]


def test_a_tuned_section_from_outside_is_followed_no_further_than_asrlib(corpus, run_dir):
    path = find_checkpoint(run_dir) / "decoding/evil.yaml"
    path.parent.mkdir()
    path.write_text("decoder: {name: evil, _target_: os.system, command: 'touch pwned'}\n")
    with pytest.raises(ValueError, match="not part of asrlib"):
        infer(corpus, run_dir, "decoder=tuned")
    path.write_text("[]")
    with pytest.raises(ValueError, match="no section decoder"):
        infer(corpus, run_dir, "decoder=tuned")


def test_pyctcdecode_is_tuned_the_same_way(corpus, run_dir):
    pytest.importorskip("pyctcdecode")
    found = run_tuning(corpus, run_dir, "decoder=lm", "tune.betas=[0,2]")
    _, evaluation = infer(corpus, run_dir, "decoder=tuned")
    assert evaluation.errors.words == found.best.sums()[0]
    section = OmegaConf.load(found.stored).decoder
    assert section.processes is None  # one was for the search alone


def test_log_probs_of_noisy_data_are_not_those_of_clean_data(corpus, run_dir, tmp_path):
    for number in range(2):
        (tmp_path / f"noise{number}").mkdir()
        sound = hiss(1.0 + number)
        soundfile.write(tmp_path / f"noise{number}/hiss.wav", sound, SAMPLE_RATE)
    places = [f"datasets.noise_dir={tmp_path}/noise{number}" for number in (0, 1)]
    chosen = [["datasets=an4"], *(["datasets=an4_noisy", place] for place in places)]
    configs = [compose("inference", *one, f"datasets.root={corpus}") for one in chosen]
    checkpoint = find_checkpoint(run_dir)
    keys = {fingerprint(checkpoint, build(config.datasets.val), "cpu") for config in configs}
    assert len(keys) == 3
