"""What the LibriSpeech experiments cost on free GPUs, computed: python -m report.budget [--tflops 1]

* FLOP: those of a forward pass (``asrlib.model.table``) × 3 × audio × epochs. Recomputation, the loss and
  the optimiser are not counted.
* A T4 is assumed to reach ``TFLOPS`` of its 65 in fp16 (none was measured yet). On an H100 two trainings of
  the short Conformer, side by side, made 10 of its 800 (report/logs: flagship-ctc, mini-short); so small a
  model is bound by memory and by launching kernels, and a T4 has a tenth of that memory's bandwidth.
* The loader's rate is that of ``report/results/bench-data.json``: reading, augmenting and batching FLAC in
  one worker. A core of Kaggle's may be slower than the bench's. The slower of the two rates counts.
* The working disk holds what a run keeps: the best checkpoint, and the newest with their optimiser's state.
* Error rates are those of others' systems of the same kind, not ours.
"""

import argparse
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from asrlib.build import build
from asrlib.configs import compose
from asrlib.model.table import N_MELS, cost

ROOT = Path(__file__).resolve().parents[1]
GPUS, CORES = 2, 4  # of a Kaggle session with "GPU T4 x2"
TFLOPS = 1.0  # of each T4, assumed
SESSION_HOURS, WEEK_HOURS = 11.25, 30.0
TRAINING = 3  # forward passes that a training step costs
FLOATS = 5  # in a checkpoint for each weight: evaluated, in training, two moments; the best, once
HOURS = {"train-clean-100": 100.6, "train-clean-360": 363.6, "train-other-500": 496.7}
GIGABYTES = {"train-clean-100": 6.6, "train-clean-360": 23.9, "train-other-500": 31.9}  # unpacked
EXPECTED = {  # WER of test-clean / test-other in percent, and whose
    "librispeech_100": "6.5–7.7 / 17–21 (Conformers on 100 h, with and without attention)",
    "librispeech_stage1": "3.4–4.5 / 8.8–11 (vanilla Conformers on 960 h)",
    "librispeech_stage2": "not known: dev decides",
}


@dataclass(frozen=True)
class Budget:
    name: str
    parameters: int
    audio_hours: float  # of an epoch
    epochs: int
    pflop: float  # of the whole training
    gpu_rate: float  # audio-seconds per second of all GPUs
    loader_rate: float  # likewise, of all cores
    data_gigabytes: float
    disk_gigabytes: float

    @property
    def hours(self) -> float:
        return self.audio_hours * self.epochs / min(self.gpu_rate, self.loader_rate)

    @property
    def sessions(self) -> int:
        return math.ceil(self.hours / SESSION_HOURS)

    @property
    def weeks(self) -> float:
        return self.hours / WEEK_HOURS


def parts_of(config: DictConfig) -> dict[str, float]:
    """{part of LibriSpeech: how often it comes in an epoch} of a training."""
    train = config.datasets.train
    corpora = [train] if "data_dir" in train else [c for c in train.parts.values() if c is not None]
    return {part: corpus.get("weight", 1) for corpus in corpora for part in corpus.parts}


def budget(name: str, tflops: float = TFLOPS) -> Budget:
    """Of the experiment ``name``, whose training data are parts of LibriSpeech."""
    config = compose("train", f"experiment={name}", "datasets.root=DIR")
    labels = config.text_encoder.vocabulary_size
    model = cost(partial(build, config.model, n_mels=N_MELS, vocabulary_size=labels))
    parts = parts_of(config)
    hours = sum(HOURS[part] * weight for part, weight in parts.items())
    flops = TRAINING * model.flops
    kept = config.trainer.keep_checkpoints * (FLOATS - 1) + 1
    return Budget(
        name=name,
        parameters=model.parameters,
        audio_hours=hours,
        epochs=config.trainer.epochs,
        pflop=flops * 3600 * hours * config.trainer.epochs / 1e15,
        gpu_rate=GPUS * tflops * 1e12 / flops,
        loader_rate=CORES * worker_rate(),
        data_gigabytes=sum(GIGABYTES[part] for part in parts),
        disk_gigabytes=4 * model.parameters * kept / 1e9,
    )


def worker_rate() -> float:
    """Audio-seconds of FLAC that one worker makes batches of in a second, as measured."""
    rows = json.loads((ROOT / "report/results/bench-data.json").read_text())
    return next(
        row["audio_seconds_per_second"]
        for row in rows
        if row["system"] == "asrlib" and row["measured"] == "format" and row["format"] == "flac"
    )


def table(tflops: float = TFLOPS) -> str:
    """All of ``EXPECTED`` as a Markdown table."""
    lines = [
        "| experiment | parameters | audio in an epoch | epochs | PFLOP | audio-s/s: GPUs, loader | hours "
        "| sessions | weeks | data; working disk | WER % of others |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, expected in EXPECTED.items():
        b = budget(name, tflops)
        cells = (
            f"`{name}`",
            f"{b.parameters / 1e6:.1f} M",
            f"{b.audio_hours:,.0f} h",
            str(b.epochs),
            f"{b.pflop:,.0f}",
            f"{b.gpu_rate:,.0f}, {b.loader_rate:,.0f}",
            f"{b.hours:.1f}",
            str(b.sessions),
            f"{b.weeks:.1f}",
            f"{b.data_gigabytes:.0f} GB; {b.disk_gigabytes:.1f} GB",
            expected,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--tflops", type=float, default=TFLOPS, help="that each GPU reaches: measured, or assumed"
    )
    print(table(parser.parse_args().tflops))


if __name__ == "__main__":
    main()
