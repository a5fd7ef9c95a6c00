"""Does training on this GPU do what it does on a CPU, and how fast is it?

python -m bench.gpu_check [--out FILE] [--minutes N] [--device cuda] [--tiny]

Its data are made on the spot, and beside PyTorch it needs hydra-core, jiwer, matplotlib, safetensors,
soundfile, soxr and tqdm alone, which any training does. In this order:

1. Matrix products in each precision: what the device can do at best.
2. Features and masks equal the CPU's.
3. One step of each model in each precision: loss and gradient norm come near the CPU's in float32.
4. A small Conformer learns a batch by heart, at least 500 steps in each precision, float16 with its
   GradScaler: the losses follow the CPU's in float32. The same by CUDA graphs.
5. The loader alone; then training steps of each size of each model, with batches in memory and through
   the loader, and which share of the matrix products that is; at last with CUDA graphs, and torch.compile.

Each finding is printed and written at once; what the time does not suffice for is left out by name.
The exit status is 1 if something differs or fails. ``--tiny`` is a rehearsal of all that, on any
device, in a minute.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from asrlib.files import write_atomically
from asrlib.model.conformer import SIZES as CONFORMER_SIZES
from asrlib.model.deepspeech2 import SIZES as DEEPSPEECH2_SIZES
from asrlib.model.jasper import JASPER_SIZES, QUARTZNET_SIZES
from asrlib.precision import DTYPES, choose_precision
from asrlib.result import provenance
from bench.gpu_agreement import ByHeart, features_and_masks, one_step
from bench.gpu_throughput import Throughput
from bench.train import peak_mb, processor
from tests.corpus import write_custom_dir

SIZES = {
    "conformer": CONFORMER_SIZES,
    "deepspeech2": DEEPSPEECH2_SIZES,
    "quartznet": QUARTZNET_SIZES,
    "jasper": JASPER_SIZES,
}


class Report:
    """The rows of one device, in a file beside those of others, and the time that is left."""

    def __init__(self, device: torch.device, minutes: float, out: str | None):
        self.device, self.minutes, self.out = device, minutes, out
        self.deadline = time.monotonic() + 60 * minutes
        self.failures = 0
        cuda = device.type == "cuda"
        self.about = {
            "system": "asrlib",
            "device": torch.cuda.get_device_name(device) if cuda else f"cpu ({processor()})",
            "torch": torch.__version__,
            **provenance(),
        }
        earlier = json.loads(Path(out).read_text()) if out and Path(out).exists() else []
        self.rows = [row for row in earlier if row["device"] != self.about["device"]]
        print(f"{self.about['device']}, PyTorch {torch.__version__}", flush=True)

    def attempt(self, name: str, check: Callable[..., dict], *arguments) -> None:
        """Adds the row that ``check`` finds. What fails is told, and keeps nothing else from running."""
        if time.monotonic() > self.deadline:
            print(f"left out, since {self.minutes:g} minutes are over: {name}", flush=True)
            return
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        started = time.monotonic()
        try:
            found = check(*arguments)
        except Exception as error:
            print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
            self.failures += 1
            return
        differs = not found.get("ok", True)
        self.failures += differs
        took = {"audio_seconds": 0.0, "seconds": time.monotonic() - started}
        row = {"check": name, **took, **found, "peak_mb": self._peak_mb()}
        self.rows.append(row | self.about)
        values = "  ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in found.items()
        )
        print(f"{'DIFFERS ' * differs}{name}: {values}", flush=True)
        if self.out:
            write_atomically(self.out, json.dumps(self.rows, indent=1) + "\n")

    def _peak_mb(self) -> float:
        """Of the device's memory, since the attempt began; on a CPU of the process, so far."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return peak_mb()


def check(report: Report, folder: Path, options: argparse.Namespace) -> None:
    device, tiny = report.device, options.tiny
    for part, count, longest in (("train", 8, 4), ("dev", 2, 4)):
        write_custom_dir(folder / "few" / part, count, part, longest)
    for part, count in (("train", 8 if tiny else 400), ("dev", 2)):
        write_custom_dir(folder / "many" / part, count, part, longest=4 if tiny else 40)
    throughput = Throughput(
        device,
        folder / "many",
        batch_seconds=4 if tiny else options.batch_seconds,
        workers=0 if tiny else options.workers,
        measured_seconds=0.1 if tiny else 3.0,
    )
    for precision in DTYPES:
        side = 64 if tiny else 8192
        report.attempt("matrix products", throughput.matrix_products, precision, side)
    first = throughput.batches(throughput.batch_seconds).kept[0]
    report.attempt("features and masks", features_and_masks, device, first)
    for model, sizes in SIZES.items():
        for precision in DTYPES:
            smallest = next(iter(sizes))
            report.attempt("one step", one_step, device, folder / "few", model, smallest, precision)
    by_heart = ByHeart(folder / "few", folder / "runs", 10 if tiny else 500)
    report.attempt("by heart", by_heart.on_the_cpu)
    for precision in ("fp16", "bf16", "fp32"):
        report.attempt("by heart", by_heart.on, device, precision)
    graphs = "trainer.graphs=true"
    if device.type == "cuda":
        few = folder / "few"
        report.attempt(
            "one step, graphs", one_step, device, few, "conformer", "xxs", "fp32", graphs
        )
        report.attempt("by heart, graphs", by_heart.on, device, "bf16", graphs)
    report.attempt("loader", throughput.loader)
    fastest = choose_precision("auto", device)
    for model, sizes in SIZES.items():
        for size in list(sizes)[: 1 if tiny else None]:
            report.attempt("training", throughput.train, model, size, fastest)
    for precision in [name for name in DTYPES if name != fastest]:
        report.attempt("training", throughput.train, "conformer", "xxs" if tiny else "s", precision)
    if device.type == "cuda":  # they are not meant for CPUs
        train, compiled = throughput.train, "trainer.compile=true"
        report.attempt("training, graphs", train, "conformer", "s", fastest, graphs)
        report.attempt("training, compiled", train, "conformer", "s", fastest, compiled)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="JSON file for the rows; those of other devices stay in it")
    parser.add_argument("--minutes", type=float, default=10, help="no new check after so many")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal in a minute")
    parser.add_argument("--batch-seconds", type=float, default=480)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(f"no CUDA device for PyTorch {torch.__version__}: nothing was checked")
        return 0
    report = Report(device, options.minutes, options.out)
    with tempfile.TemporaryDirectory() as folder:
        check(report, Path(folder), options)
    print(f"{report.failures} of the findings differ or failed", flush=True)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
