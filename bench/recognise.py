"""Whole recognisers on the same recordings and the same machine: speed, memory, WER.

python -m bench.recognise inferencer.from_pretrained=CHECKPOINT datasets=NAME inferencer.part=val \\
    [+systems=[asrlib,pocketsphinx]] [+out=FILE] [inferencer.result_path=FILE]

The arguments are those of inference.py. Beside asrlib with ``decoder=greedy`` and ``decoder=tuned``, in
float32 and in the fastest precision that the CPU has, and with narrow limits of its search, stands
PocketSphinx (pip install pocketsphinx) with its default English model. Each runs alone, and may use all
cores by one process for each. Seconds are wall time from the first file to the last text, reading and
decompression included; what is loaded before, and compiled by one second of silence, is not. Memory is the
most that our processes hold together at one time, looked up twice a second, where pages that they share
count once (Linux's PSS); of PocketSphinx's processes it is what each peak is above what was there before
PocketSphinx was loaded.

``inferencer.result_path`` gets PocketSphinx's rows; ours are inference.py's. In ``out`` what was measured
of other systems, on other data, and on other machines stays: systems differ in what they gain by a newer CPU.
"""

import json
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from omegaconf import DictConfig, OmegaConf

from asrlib.configs import compose
from asrlib.cores import usable_cores
from asrlib.data import SAMPLE_RATE
from asrlib.data.dataset import SkippedItem, SpeechDataset
from asrlib.files import write_atomically
from asrlib.metrics import ErrorRate
from asrlib.result import Result, add_result, provenance, scores
from bench.train import in_a_process, peak_mb, processor

SYSTEMS = ("asrlib", "pocketsphinx")
NARROW = ("+decoder.beam_width=100", "+decoder.token_min_logp=-7", "+decoder.beam_prune_logp=-10")
RUNS = (  # a decoder and its options, and the precision; "auto" is left out where it is float32
    ("asrlib", ("decoder=greedy",), "fp32"),
    ("asrlib", ("decoder=tuned",), "fp32"),
    ("asrlib", ("decoder=tuned", *NARROW), "fp32"),
    ("asrlib", ("decoder=greedy",), "auto"),
    ("asrlib", ("decoder=tuned",), "auto"),
    ("asrlib", ("decoder=tuned", *NARROW), "auto"),
    ("pocketsphinx", ("decoder=greedy",), "fp32"),
)


class MemoryWatch:
    """``peak_mb``: the most that this process's descendants held together while the block ran."""

    def __enter__(self) -> "MemoryWatch":
        self.peak_mb, self._ended = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            held = map(_shared_once_mb, psutil.Process().children(recursive=True))
            self.peak_mb = max(self.peak_mb, sum(held))


def _shared_once_mb(process: psutil.Process) -> float:
    try:
        return process.memory_full_info().pss / 2**20
    except psutil.NoSuchProcess:  # it has just ended
        return 0.0


def asrlib(config: DictConfig) -> dict:
    """What ``inference.py`` does with ``config``."""
    from asrlib.training import Inferencer

    inferencer = Inferencer(config)
    inferencer.recognizer.transcribe(np.zeros(SAMPLE_RATE, np.float32))
    started = time.perf_counter()
    evaluation = inferencer.run()
    return {
        "seconds": time.perf_counter() - started,
        "audio_seconds": sum(u.duration for u in evaluation.utterances.values()),
        "errors": evaluation.errors,
        "decoder": inferencer.decoder.name,
        "precision": config.inferencer.precision,
        "batch_seconds": config.inferencer.batch_seconds,
    }


def open_pocketsphinx(dataset: SpeechDataset) -> None:
    """In a worker's process."""
    global sphinx, utterances, before_mb
    from pocketsphinx import Config, Decoder

    utterances, before_mb = dataset, peak_mb()
    sphinx = Decoder(Config(samprate=SAMPLE_RATE, loglevel="FATAL"))


def hear(place: int) -> tuple[str | None, int, float]:
    """(text of an utterance, this process, the MB that PocketSphinx added to it); None: not readable"""
    item = utterances[0, place]
    if isinstance(item, SkippedItem):
        print(f"left out {item.utterance.id}: {item.reason}", flush=True)
        return None, os.getpid(), peak_mb() - before_mb
    samples = np.clip(item.audio * 32768, -32768, 32767).astype(np.int16)
    sphinx.start_utt()
    sphinx.process_raw(samples.tobytes(), full_utt=True)
    sphinx.end_utt()
    found = sphinx.hyp()
    return found.hypstr if found else "", os.getpid(), peak_mb() - before_mb


def pocketsphinx(config: DictConfig) -> dict:
    """The longest recordings first, each by whichever process is free."""
    from asrlib.build import build

    dataset = build(config.datasets[config.inferencer.part])
    places = sorted(range(len(dataset)), key=lambda i: -dataset.utterances[i].duration)
    errors, peaks, cores = ErrorRate(), {}, usable_cores()
    with multiprocessing.Pool(cores, open_pocketsphinx, [dataset]) as pool:
        pool.map(hear, places[-1:] * 2 * cores, chunksize=1)  # by then all are open
        started = time.perf_counter()
        heard = pool.map(hear, places, chunksize=1)
        seconds = time.perf_counter() - started
    for place, (text, process, peak) in zip(places, heard, strict=True):
        utterance = dataset.utterances[place]
        if text is not None:
            errors.add(utterance.text, text, utterance.id, utterance.speaker)
        peaks[process] = peak
    return {
        "seconds": seconds,
        "audio_seconds": sum(u.duration for u in dataset.utterances),
        "peak_mb": sum(peaks.values()),
        "errors": errors,
        "decoder": "its 3-gram",
    }


def measure(system: str, config: DictConfig, answer) -> None:
    """In a process of its own."""
    answer.send(pocketsphinx(config) if system == "pocketsphinx" else asrlib(config))


def result(found: dict, about: dict) -> Result:
    """PocketSphinx's row beside ours."""
    from pocketsphinx import get_model_path

    sizes = {p.name: p.stat().st_size for p in Path(get_model_path(), "en-us", "en-us").iterdir()}
    return Result(
        system="pocketsphinx",
        name="en-us",
        commit=about["commit"],
        command=about["command"],
        train_data="its own",
        test_data=about["data"],
        decoder=found["decoder"],
        # means and variances are float32, a mixture weight is a byte
        parameters=(sizes["means"] + sizes["variances"]) // 4 + sizes["sendump"],
        device="cpu",
        train_hours=None,
        audio_hours_seen=None,
        seed=None,
        date=about["date"],
        **scores(found["errors"]),
    )


def data_name(config: DictConfig) -> str:
    """As results have it, and how many utterances if not all."""
    part = config.inferencer.part
    limit = config.datasets[part].get("limit")
    return f"{config.datasets.name} {part}" + (f", {limit} utterances" if limit else "")


def _of_what(row: dict) -> tuple[str, str, str]:
    return row["system"], row["data"], row["device"]


def main() -> None:
    arguments = sys.argv[1:]
    chosen, rows = compose("inference", *arguments).get("systems", SYSTEMS), []
    if unknown := set(chosen) - set(SYSTEMS):
        sys.exit(f"+systems: no {sorted(unknown)}; there are {list(SYSTEMS)}")
    import torch  # here, so that PocketSphinx's processes are without it

    from asrlib.precision import choose_precision

    fastest = choose_precision("auto", torch.device("cpu"))
    for system, decoder, precision in RUNS:
        if precision == "auto" and fastest == "fp32":
            continue
        config = compose("inference", *arguments, *decoder)
        config.inferencer.precision = fastest if precision == "auto" else precision
        OmegaConf.resolve(config)
        result_path, config.inferencer.result_path = config.inferencer.result_path, None
        config.inferencer.show = 0
        if system not in chosen:
            continue
        about = {
            "data": data_name(config),
            "device": f"cpu ({processor()}, {torch.backends.cpu.get_cpu_capability()})",
            "threads": usable_cores(),
            **provenance(),
        }
        with MemoryWatch() as memory:
            found = in_a_process(measure, system, config)
        found.setdefault("peak_mb", memory.peak_mb)
        if system == "pocketsphinx" and result_path:
            add_result(result_path, result(found, about))
        wer = found.pop("errors").wer
        rate = found["audio_seconds"] / found["seconds"]
        told = f"{rate:6.1f} × real time  {found['peak_mb']:5.0f} MB  WER {wer:.2f} %"
        print(f"{system:12} {found['decoder']} {config.inferencer.precision} {told}", flush=True)
        rows.append(
            {"system": system, "wer": wer, "audio_seconds_per_second": rate} | found | about
        )
    if config.get("out"):
        path, measured = Path(config.out), {_of_what(row) for row in rows}
        before = json.loads(path.read_text()) if path.exists() else []
        rows += [row for row in before if _of_what(row) not in measured]
        write_atomically(path, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
