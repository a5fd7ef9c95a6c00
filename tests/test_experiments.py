"""Every published experiment starts, stops, goes on and evaluates, at its full size."""

from pathlib import Path

import pytest
import soundfile
from omegaconf import OmegaConf

import asrlib.configs
from asrlib.configs import compose
from asrlib.data import SAMPLE_RATE
from asrlib.training import Inferencer, train
from report.budget import EXPECTED, HOURS, budget, parts_of, table
from tests.corpus import say, write_librispeech, write_parts

ROOT = Path(__file__).parents[1]
NAMES = sorted(p.stem for p in (Path(asrlib.configs.__file__).parent / "experiment").glob("*.yaml"))
PIECES = 36  # labels that the few texts here give
PARTS = ("train-clean-5", *HOURS, "dev-clean", "test-clean")
SMALL = [  # as little data as makes two steps; the model is not touched
    "trainer.epochs=1",
    "trainer.batch_seconds=2",
    "trainer.num_workers=0",
    "trainer.log_samples=1",
    "++augmentations.waveform.speed=null",  # a few short texts may not fit faster speech
    "init_from=null",
]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """A corpus of tones in each layout that experiments read."""
    everything = tmp_path_factory.mktemp("shipped")
    write_librispeech(everything / "LibriSpeech", 4, *PARTS)
    write_parts(everything / "an4", train=4)
    write_parts(everything, ljspeech=2, kathleen=2)
    (everything / "noise").mkdir()
    for name in ("dude_miaowing", "pink_noise", "running_tap"):
        soundfile.write(everything / "noise" / f"{name}.wav", say("noise"), SAMPLE_RATE)
    return {
        "an4": write_parts(tmp_path_factory.mktemp("an4"), train=4, dev=2, test=2),
        "librispeech": write_librispeech(tmp_path_factory.mktemp("librispeech"), 4, *PARTS),
        "shipped": everything,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_steps_at_full_size_with_a_stop_between_and_an_evaluation(name, roots, tmp_path):
    published = compose("train", f"experiment={name}")
    data = published.datasets.name
    layout = "librispeech" if "libri" in data or data == "mixture" else "an4"
    if data == "shipped":
        layout = data
    options = [*SMALL, f"datasets.root={roots[layout]}", f"run_dir={tmp_path}"]
    if data == "demo":  # the same recipe, without the corpus that espeak would speak
        options.append("datasets=an4")
    if OmegaConf.select(published, "augmentations.waveform.background"):  # not all have noise
        options.append(f"augmentations.waveform.background.data_dir={roots['shipped'] / 'noise'}")
    if "bpe" in published.text_encoder.kind:
        options.append(f"text_encoder.vocabulary_size={PIECES}")
    config = compose("train", f"experiment={name}", *options)
    stopped = train(compose("train", f"experiment={name}", *options, "trainer.max_hours=1e-9"))
    assert not stopped.finished and stopped.step == 1
    progress = train(config)
    assert progress.finished and progress.step >= 2 and not progress.bad_steps
    inference = compose(
        "inference",
        f"datasets={layout}",
        f"datasets.root={roots[layout]}",
        f"inferencer.from_pretrained={tmp_path}",
        f"decoder={config.decoder.name}",
        "inferencer.num_workers=0",
    )
    evaluation = Inferencer(inference).run()
    assert len(evaluation.hypotheses) in (2, 4) and not evaluation.skipped


@pytest.mark.parametrize("name", EXPECTED)
def test_the_budget_follows_from_the_experiment(name):
    config = compose("train", f"experiment={name}", "datasets.root=DIR")
    found = budget(name)
    hours = sum(HOURS[part] * weight for part, weight in parts_of(config).items())
    assert found.audio_hours == pytest.approx(hours) and hours > 100
    assert found.hours == pytest.approx(
        hours * config.trainer.epochs / min(found.gpu_rate, found.loader_rate)
    )
    assert budget(name, tflops=1e6).hours < found.hours or found.gpu_rate > found.loader_rate
    assert (found.sessions - 1) * 11.25 < found.hours <= found.sessions * 11.25
    assert found.disk_gigabytes < 20, "the working space of Kaggle"


def test_the_readme_shows_the_budget():
    assert table() in (ROOT / "README.md").read_text(encoding="utf-8")
