"""Inference on anything: whatever can be read gets its text, the rest is named; nothing is lost."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from asrlib import Recognizer, cores
from asrlib.configs import compose
from asrlib.data import SAMPLE_RATE, AudioError, read_audio
from asrlib.data.audio import stream_audio
from asrlib.decoding import LongForm
from asrlib.decoding.longform import OVERLAP_SECONDS, WINDOW_SECONDS, windows
from asrlib.files import write_atomically
from asrlib.metrics import score_texts
from asrlib.randomness import generator
from asrlib.text import CTCTextEncoder
from asrlib.training import Inferencer, train
from tests.corpus import random_text, say, write_custom_dir
from tests.signals import hiss

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run whose model really recognises the language of tones, trained in some seconds."""
    folder = tmp_path_factory.mktemp("trained")
    for part, count in (("train", 150), ("dev", 12), ("test", 12)):
        write_custom_dir(folder / "data" / part, count, seed=part, longest=6)
    config = compose(
        "train",
        "model=mlp",
        "model.width=128",
        "datasets=an4",
        f"datasets.root={folder / 'data'}",
        f"run_dir={folder / 'run'}",
        "augmentations=none",
        "optimizer.lr=3e-3",
        "trainer.epochs=16",
        "trainer.batch_seconds=20",
        "trainer.eval_every=4",
        "trainer.num_workers=0",
    )
    assert train(config).best_wer < 5
    return folder


@pytest.fixture(scope="module")
def recognizer(trained):
    return Recognizer.from_pretrained(trained / "run", device="cpu")


def infer(trained, data_dir, out, *overrides):
    config = compose(
        "inference",
        "datasets=custom_dir",
        f"datasets.test.data_dir={data_dir}",
        f"inferencer.from_pretrained={trained / 'run'}",
        f"inferencer.save_path={out}",
        "inferencer.num_workers=0",
        "inferencer.device=cpu",
        *overrides,
    )
    inferencer = Inferencer(config)
    evaluation = inferencer.run()
    return evaluation, inferencer.left_out(evaluation)


def texts(folder):
    return {path.stem: path.read_text().strip() for path in folder.glob("*.txt")}


def make_messy(folder: Path) -> tuple[dict[str, str], set[str]]:
    """Fills ``folder/audio``; returns {id: text} of what can be read, and the files that cannot."""
    audio = folder / "audio"
    audio.mkdir(parents=True)
    speech, readable = say("ab ba"), {}

    def write(name, samples, rate=SAMPLE_RATE, text="ab ba", **options):
        soundfile.write(audio / name, samples, rate, **options)
        readable[Path(name).stem] = text

    write(
        "rate8k.wav", soxr.resample(speech, SAMPLE_RATE, 8_000), 8_000, text=None
    )  # without its upper half of the spectrum
    write("rate44k.flac", soxr.resample(speech, SAMPLE_RATE, 44_100), 44_100)
    write("stereo.wav", np.stack([speech, speech], axis=1))
    write("mp3.mp3", speech, format="MP3")
    write("opus.opus", speech, format="OGG", subtype="OPUS")
    write("upper.WAV", speech, format="WAV")
    write("ten_ms.wav", speech[:160], text=None)
    write("silence.wav", np.zeros(SAMPLE_RATE), text=None)
    write("twice.flac", speech)
    soundfile.write(audio / "twice.wav", speech, SAMPLE_RATE)
    (audio / "zero.wav").touch()
    (audio / "text.wav").write_text("I am no recording at all, but a letter to you.")
    (audio / "dangling.wav").symlink_to(folder / "nowhere.wav")
    soundfile.write(audio / "header_only.flac", speech, SAMPLE_RATE)
    flac = (audio / "header_only.flac").read_bytes()
    (audio / "header_only.flac").write_bytes(flac[:60])
    broken = speech.copy()
    broken[1000:1010] = np.nan
    soundfile.write(audio / "nan.wav", broken, SAMPLE_RATE, subtype="FLOAT")
    broken[1000:1010] = 1e30
    soundfile.write(audio / "absurd.wav", broken, SAMPLE_RATE, subtype="FLOAT")
    (audio / ".DS_Store").write_bytes(b"hidden files are nobody's recordings")
    unreadable = {
        "twice.wav",
        "zero.wav",
        "text.wav",
        "dangling.wav",
        "header_only.flac",
        "nan.wav",
        "absurd.wav",
    }
    return readable, unreadable


def test_a_messy_folder_gives_a_text_for_all_that_can_be_read_and_names_the_rest(trained, tmp_path):
    readable, unreadable = make_messy(tmp_path)
    long = np.concatenate([say("ab ba ")] * 120)  # two minutes
    soundfile.write(tmp_path / "audio" / "long.flac", long, SAMPLE_RATE)
    _, left_out = infer(trained, tmp_path, tmp_path / "out")
    found = texts(tmp_path / "out")
    assert found.keys() == readable.keys() | {"long"}
    for id, text in readable.items():
        assert text is None or found[id] == text, id
    assert len(left_out) == len(unreadable)
    for name in unreadable:
        assert any(name in reason for reason in left_out), name


def test_the_status_of_inference_tells_whether_all_was_read(trained, tmp_path):
    write_custom_dir(tmp_path / "data", count=1, seed="one")
    command = [
        sys.executable,
        "inference.py",
        "datasets=custom_dir",
        f"datasets.test.data_dir={tmp_path / 'data'}",
        f"inferencer.from_pretrained={trained / 'run'}",
        f"inferencer.save_path={tmp_path / 'out'}",
        "inferencer.num_workers=0",
    ]
    good = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert "WER" in good.stdout
    (tmp_path / "data/audio/bad.wav").write_text("no audio")
    bad = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert bad.returncode == 1
    assert "bad.wav" in bad.stderr
    assert len(texts(tmp_path / "out")) == 1
    lenient = [*command, "inferencer.strict=false"]
    named = subprocess.run(lenient, cwd=ROOT, capture_output=True, text=True)
    assert (named.returncode, "bad.wav" in named.stderr) == (0, True)


def test_what_an_earlier_run_left_is_not_taken_for_a_text_of_this_one(trained, tmp_path):
    write_custom_dir(tmp_path / "data", count=2, seed="old")
    infer(trained, tmp_path / "data", tmp_path / "out")
    first, second = sorted((tmp_path / "data/audio").iterdir())
    first.write_text("no recording any more")
    (tmp_path / "out/other.txt").write_text("of another folder")
    infer(trained, tmp_path / "data", tmp_path / "out")
    assert texts(tmp_path / "out").keys() == {second.stem, "other"}


def test_texts_are_there_before_all_is_decoded(trained, tmp_path, monkeypatch):
    write_custom_dir(tmp_path / "data", count=3, seed="three")

    def full(*_):
        raise OSError("no room for the table")

    monkeypatch.setattr("asrlib.training.inferencer.write_jsonl", full)
    table = f"inferencer.table_path={tmp_path / 'table.jsonl'}"
    with pytest.raises(OSError, match="no room"):
        infer(trained, tmp_path / "data", tmp_path / "out", table)
    assert len(texts(tmp_path / "out")) == 3


def test_processes_that_share_a_folder_find_what_one_does(trained, tmp_path, monkeypatch):
    make_messy(tmp_path)
    long = np.concatenate([say("ab ba ")] * 40)  # 36 s
    soundfile.write(tmp_path / "audio" / "long.flac", long, SAMPLE_RATE)
    (tmp_path / "at_work").mkdir()
    save = Inferencer._save

    def signed(inferencer, utterance, hypothesis):
        (tmp_path / "at_work" / str(os.getpid())).touch()
        save(inferencer, utterance, hypothesis)

    monkeypatch.setattr(Inferencer, "_save", signed)
    batches = "inferencer.batch_seconds=2"
    alone, left_out = infer(trained, tmp_path, tmp_path / "1", batches, "inferencer.processes=1")
    assert [path.name for path in (tmp_path / "at_work").iterdir()] == [str(os.getpid())]
    shared, also = infer(trained, tmp_path, tmp_path / "3", batches, "inferencer.processes=3")
    assert len([*(tmp_path / "at_work").iterdir()]) == 1 + 3
    assert shared.rows() == alone.rows()
    assert sorted(also) == sorted(left_out)
    assert texts(tmp_path / "3") == texts(tmp_path / "1")


def test_a_process_that_dies_is_an_error_and_its_share_is_not_lost_silently(
    trained, tmp_path, monkeypatch
):
    write_custom_dir(tmp_path / "data", count=5, seed="five")
    recognize, here = Inferencer._recognize, os.getpid()
    monkeypatch.setattr(
        Inferencer,
        "_recognize",
        lambda *batch: recognize(*batch) if os.getpid() == here else os._exit(9),
    )
    with pytest.raises(RuntimeError, match="memory"):
        infer(trained, tmp_path / "data", tmp_path / "out", "inferencer.batch_seconds=1")


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("150000 100000", 2), ("20000 100000", 1), (None, 8)]
)
def test_a_containers_share_of_the_cores_counts(tmp_path, monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        cores.QUOTA.write_text(f"{quota}\n")
    assert cores.usable_cores() == expected


def test_what_is_compiled_needs_no_place_on_disk(monkeypatch):
    compiled = pytest.importorskip("asrlib.compiled")

    def without_place(function):
        raise RuntimeError("cannot cache function: no locator available for this file")

    monkeypatch.setattr(compiled, "_SharedCache", without_place)
    assert compiled.compiled(lambda x: x + 1)(1) == 2


def test_while_one_process_keeps_what_it_compiled_no_other_reads_or_writes(tmp_path, monkeypatch):
    compiled = pytest.importorskip("asrlib.compiled")
    fcntl, caching = pytest.importorskip("fcntl"), pytest.importorskip("numba.core.caching")
    cache_file = caching.IndexDataCacheFile
    (tmp_path / "asrlib_filling.py").write_text("def fill(x):\n    x[:] = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = importlib.import_module("asrlib_filling").fill
    first, second = compiled.compiled(function), compiled.compiled(function)
    kept, save = [], cache_file._save_data

    def save_alone(self, name, data):
        with (Path(self._cache_path) / compiled.LOCK).open() as lock:
            for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                with pytest.raises(BlockingIOError):
                    fcntl.flock(lock, kind | fcntl.LOCK_NB)
        kept.append(name)
        save(self, name, data)

    monkeypatch.setattr(cache_file, "_save_data", save_alone)
    x = np.zeros(6)
    first(x)
    second(x[::2])  # its types are others
    assert len(set(kept)) == 2
    third = compiled.compiled(function)
    third(x)
    assert third.stats.cache_hits and len(kept) == 2


def test_fewer_processes_than_one_are_refused(trained, tmp_path):
    write_custom_dir(tmp_path / "data", count=1, seed="one")
    with pytest.raises(ValueError, match="processes=0"):
        infer(trained, tmp_path / "data", tmp_path / "out", "inferencer.processes=0")


def test_a_name_as_long_as_a_file_system_allows_gets_its_text(tmp_path):
    longest = tmp_path / f"{'n' * 251}.txt"
    write_atomically(longest, "text")
    assert longest.read_text() == "text" and [*tmp_path.iterdir()] == [longest]


def test_nothing_readable_at_all_is_an_error_that_names_the_files(trained, tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "bad.wav").write_text("no audio")
    with pytest.raises(Exception, match=r"bad\.wav"):
        infer(trained, tmp_path, tmp_path / "out")


def test_damaged_files_are_read_or_refused_by_name_and_never_crash(tmp_path):
    speech = say("abc")
    sources = []
    for suffix, options in (
        ("wav", {}),
        ("flac", {}),
        ("mp3", {"format": "MP3"}),
        ("opus", {"format": "OGG", "subtype": "OPUS"}),
    ):
        path = tmp_path / f"good.{suffix}"
        soundfile.write(path, speech, SAMPLE_RATE, **options)
        sources.append((suffix, path.read_bytes()))
    read, refused = 0, 0
    for number in range(240):
        rng = generator("fuzz", number)
        suffix, content = sources[number % len(sources)]
        content = bytearray(content)
        if number % 3 == 0:
            content = content[: rng.integers(len(content))]
        else:
            reach = 64 if number % 3 == 1 else len(content)  # headers, then anywhere
            for position in rng.integers(reach, size=rng.integers(1, 12)):
                content[position] = rng.integers(256)
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(bytes(content))
        try:
            samples = sum(len(piece) for piece in stream_audio(path))
        except AudioError as error:
            assert path.name in str(error)  # noqa: PT017
            refused += 1
        else:
            read += 1
            assert samples < 100 * len(speech)  # a lying header costs nothing
    assert read > 20
    assert refused > 20


def test_noisy_test_data_sound_the_same_every_time_and_long_ones_are_noisy_too(
    trained, recognizer, tmp_path
):
    write_custom_dir(tmp_path / "test", count=3, seed="noisy")
    long = np.concatenate([say("ab ba ")] * 40)  # 36 s
    soundfile.write(tmp_path / "test/audio/long-s0-b.flac", long, SAMPLE_RATE)
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise/hiss.wav", hiss(1.0), SAMPLE_RATE)

    def scores(datasets, *overrides):
        run = f"inferencer.from_pretrained={trained / 'run'}"
        chosen = [f"datasets={datasets}", f"datasets.root={tmp_path}", *overrides, run]
        inferencer = Inferencer(compose("inference", *chosen, "inferencer.device=cpu"))
        found = inferencer.run()
        return inferencer, {id: h.score for id, h in found.hypotheses.items()}

    _, clean = scores("an4")
    noise_dir = f"datasets.noise_dir={tmp_path / 'noise'}"
    inferencer, noisy = scores("an4_noisy", noise_dir)
    _, again = scores("an4_noisy", noise_dir, "inferencer.num_workers=0")
    assert noisy == again
    assert len(noisy) == 4
    assert all(noisy[id] != clean[id] for id in clean)
    noise = inferencer.dataset.augmentations
    heard = recognizer.long_form(
        [noise(read_audio(tmp_path / "test/audio/long-s0-b.flac"), 0, "long-s0-b")]
    )
    assert heard.score == pytest.approx(noisy["long-s0-b"])


class Tones:
    """Pieces of endless speech in the language of tones, and the largest array ever asked for."""

    def __init__(self, sentences):
        self.sentences = sentences

    def __iter__(self):
        pause = say(" ")
        for sentence in self.sentences:
            yield say(sentence)
            yield pause


def wer(reference, hypothesis):
    return score_texts({"x": reference}, {"x": hypothesis}).errors.wer


def test_windows_joined_equal_the_recording_in_one_piece_and_utterance_by_utterance(recognizer):
    sentences = [random_text("long", i, longest=6) for i in range(120)]  # three minutes
    joined = recognizer.long_form(Tones(sentences)).text
    audio = torch.from_numpy(np.concatenate(list(Tones(sentences))))
    with torch.no_grad():
        output = recognizer.model(audio[None], torch.tensor([len(audio)]))
    (whole,) = recognizer.decoder(output["log_probs"], output["log_probs_length"])
    single = " ".join(recognizer.transcribe(say(s)).text for s in sentences)
    assert wer(whole.text, joined) <= 0.5  # what the seams cost: at most a word in 200
    assert wer(single, joined) <= 2.0  # and with the other context that a word has on its own


def test_a_long_file_is_cut_in_the_same_places_however_it_is_read(recognizer, tmp_path):
    audio = np.concatenate(list(Tones([random_text("cut", i, longest=6) for i in range(60)])))
    soundfile.write(tmp_path / "a.wav", audio, SAMPLE_RATE, subtype="FLOAT")
    whole = recognizer.transcribe(audio)
    assert recognizer.transcribe(tmp_path / "a.wav").hypothesis == whole.hypothesis
    assert whole.token_times == sorted(whole.token_times)
    assert len(audio) / SAMPLE_RATE - 3 < whole.token_times[-1] < len(audio) / SAMPLE_RATE


@pytest.mark.parametrize("seconds", [1, 29.9, 30, 30.1, 51.9, 52.1, 200])
def test_windows_cover_a_recording_of_any_length_in_bounded_memory(seconds):
    audio = np.arange(int(seconds * SAMPLE_RATE), dtype=np.float32)
    pieces = (audio[i : i + 7001] for i in range(0, len(audio), 7001))
    step = (WINDOW_SECONDS - OVERLAP_SECONDS) * SAMPLE_RATE
    end = 0
    for number, window in enumerate(windows(pieces)):
        assert window[0] == number * step
        assert len(window) <= WINDOW_SECONDS * SAMPLE_RATE
        end = window[-1]
    assert end == audio[-1]


def test_an_hour_is_decoded_a_few_windows_at_a_time():
    longest = 0

    class Deaf(torch.nn.Module):
        device, samples_per_frame = "cpu", 320

        def forward(self, audio, lengths):
            nonlocal longest
            longest = max(longest, audio.numel())
            frames = lengths // 320
            log_probs = torch.zeros(len(audio), int(frames.max()), 29).log_softmax(-1)
            return {"log_probs": log_probs, "log_probs_length": frames}

    def decoder(log_probs, lengths):
        from asrlib.decoding import Hypothesis

        return [Hypothesis("word", 0.0, [1], [0]) for _ in lengths]

    minute = np.zeros(60 * SAMPLE_RATE, dtype=np.float32)
    hypothesis = LongForm(Deaf(), decoder, CTCTextEncoder())(minute for _ in range(60))
    assert longest <= 4 * WINDOW_SECONDS * SAMPLE_RATE
    assert len(hypothesis.text.split()) == pytest.approx(3600 / 22, abs=2)
    assert hypothesis.frames == sorted(hypothesis.frames)


def test_a_file_a_list_and_an_array_with_its_rate_give_the_same_text(recognizer, trained):
    path = sorted((trained / "data/test/audio").iterdir())[0]
    audio = read_audio(path)
    text = recognizer.transcribe(path).text
    assert recognizer.transcribe(str(path)).text == text
    assert [t.text for t in recognizer.transcribe([path, audio])] == [text, text]
    stereo = np.stack([audio, audio], axis=1).repeat(3, axis=0)
    assert recognizer.transcribe(stereo, sample_rate=48_000).text == text
    assert recognizer.transcribe([]) == []


def test_the_precision_is_chosen_for_a_recognizer_and_on_the_command_line(trained, tmp_path):
    computed_in = {"fp32": None, "bf16": torch.bfloat16}
    for name, dtype in computed_in.items():
        recognizer = Recognizer.from_pretrained(trained / "run", "cpu", precision=name)
        assert recognizer.model.evaluates_in == dtype
    overrides = [f"inferencer.from_pretrained={trained / 'run'}", "inferencer.precision=bf16"]
    overrides += ["datasets=custom_dir", f"datasets.test.data_dir={trained / 'data/test'}"]
    inferencer = Inferencer(compose("inference", *overrides, "inferencer.num_workers=0"))
    assert inferencer.recognizer.model.evaluates_in == torch.bfloat16
    assert inferencer.run().errors.wer < 5
    with pytest.raises(ValueError, match="fp32"):
        Recognizer.from_pretrained(trained / "run", "cpu", precision="float64")


def test_an_unreadable_file_is_an_error_with_its_name(recognizer, tmp_path):
    with pytest.raises(AudioError, match=r"none\.wav"):
        recognizer.transcribe(tmp_path / "none.wav")


def test_greedy_inference_imports_nothing_beyond_the_requirements(trained):
    script = """
import sys

class Blocker:
    blocked = {"torchaudio", "pyctcdecode", "kenlm", "youtokentome", "wandb", "comet_ml"}
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.blocked:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
from asrlib import Recognizer
print(Recognizer.from_pretrained(sys.argv[1]).transcribe(sys.argv[2]).text)
sys.argv = ["inference.py", *sys.argv[3:]]
import runpy
runpy.run_path("inference.py", run_name="__main__")
"""
    path = sorted((trained / "data/test/audio").iterdir())[0]
    overrides = [
        "datasets=an4",
        f"datasets.root={trained / 'data'}",
        f"inferencer.from_pretrained={trained / 'run'}",
    ]
    command = [sys.executable, "-c", script, str(trained / "run"), str(path), *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WER" in done.stdout


def test_metrics_count_a_missing_prediction_as_deletions_and_list_it(tmp_path):
    for name, content in {
        "gt/a": "one two three",
        "gt/b": "Four, five!",
        "out/a": "one two",
    }.items():
        path = tmp_path / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    (tmp_path / "out/stray.txt").write_text("six")
    command = [sys.executable, "calc_metrics.py", "--gt_dir", str(tmp_path / "gt")]
    command += ["--pred_dir", str(tmp_path / "out"), "--json", str(tmp_path / "m.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "deleted: b" in done.stderr
    assert "stray" in done.stderr
    numbers = json.loads((tmp_path / "m.json").read_text())
    assert (numbers["deletions"], numbers["words"], numbers["wer"]) == (3, 5, 60.0)
    assert numbers["mean_utterance_wer"] == pytest.approx((100 / 3 + 100) / 2)
    assert (numbers["missing"], numbers["unexpected"]) == (["b"], ["stray"])
    assert "mean over utterances" in done.stdout
    done = subprocess.run(
        [*command, "--speaker_pattern", "(a"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr.startswith("calc_metrics: speaker_pattern '(a'")


def test_metrics_of_references_without_words_are_valid_json(tmp_path):
    for name, content in {"gt/a": "", "out/a": "one"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.txt").write_text(content)
    command = [sys.executable, "calc_metrics.py", "--gt_dir", str(tmp_path / "gt")]
    command += ["--pred_dir", str(tmp_path / "out"), "--json", str(tmp_path / "m.json")]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    numbers = json.loads((tmp_path / "m.json").read_text(), parse_constant=pytest.fail)
    assert (numbers["wer"], numbers["insertions"], numbers["words"]) == (None, 1, 0)


def test_scores_of_the_two_scripts_agree(trained, tmp_path):
    evaluation, left_out = infer(trained, trained / "data/test", tmp_path / "out")
    assert left_out == []
    references = texts(trained / "data/test/transcriptions")
    score = score_texts(references, texts(tmp_path / "out"))
    assert score.errors.as_dict() == evaluation.errors.as_dict()


def test_the_page_of_errors_shows_the_worst_first_with_sound_and_colour(trained, tmp_path):
    table = tmp_path / "table.jsonl"
    infer(trained, trained / "data/test", tmp_path / "out", f"inferencer.table_path={table}")
    rows = [json.loads(line) for line in table.open()]
    rows[3]["predict"] = "aaa <b> wrong every time"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "asrlib.tracking.errors", str(table)]
    environment = {"BROWSER": "true", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = table.with_suffix(".html").read_text()
    assert page.index(rows[3]["utterance_id"]) == min(
        page.index(f"<h2>{row['utterance_id']}") + 4 for row in rows
    )
    assert page.count("data:audio/mpeg;base64,") == len(rows)
    assert 'class="substitute"' in page.split("</article>")[0]


def test_a_training_leaves_a_table_for_the_page_of_errors(trained):
    rows = [json.loads(line) for line in (trained / "run/hypotheses_val.jsonl").open()]
    assert len(rows) == 12
    assert set(rows[0]) == {"utterance_id", "audio_path", "speaker", "target", "predict"}
