"""Conformer blocks forward and backward: ours beside torchaudio's, on this CPU.

python -m bench.train [--out FILE] [--threads N] [--rounds N] [--size s] [--seconds N…]

Both are as wide, deep and long in kernel as the Conformer of that size, in float32, in training mode,
and get the same input frames (40 ms each) and lengths: batches of about 40 seconds whose shortest
utterance has 90 % of the longest. Torchaudio's has batch norm and no positions, ours layer norm and
rotary positions; with dropout, torchaudio's leaves out attention weights, too.

The two take turns within one process, so that what else the machine does meets both alike; seconds are
CPU seconds of the process, the ratio is the median over rounds. Memory is the peak of a process in which
one of them alone makes three steps; ``idle_mb`` is what it has before the first.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from asrlib.files import write_atomically
from asrlib.result import provenance

SYSTEMS = ("asrlib", "torchaudio")
DROPOUT = (0.1, 0.0)  # the default of both, and none
SECONDS = (5, 10, 20, 35)  # of the longest utterance
BATCH_SECONDS = 40
FRAMES_PER_SECOND = 25  # after a subsampling by 4


def make_model(system: str, size: str, dropout: float, seconds: float) -> tuple:
    """(module, its forward pass on a batch, float32 [B, T', D] and frames [B] of that batch)"""
    import torch

    from asrlib.model.attention import rotations
    from asrlib.model.conformer import SIZES, ConformerBlock, real_frames

    torch.manual_seed(0)
    dial, frames = SIZES[size], int(seconds * FRAMES_PER_SECOND)
    utterances = max(1, int(BATCH_SECONDS // seconds))
    lengths = torch.linspace(frames, 0.9 * frames, utterances).long()
    x = torch.randn(utterances, frames, dial.width, requires_grad=True)
    if system == "torchaudio":
        from torchaudio.models import Conformer

        theirs = Conformer(
            input_dim=dial.width,
            num_heads=dial.heads,
            ffn_dim=4 * dial.width,
            num_layers=dial.layers,
            depthwise_conv_kernel_size=dial.kernel,
            dropout=dropout,
        )
        return theirs, lambda: theirs(x, lengths)[0], x, lengths

    blocks = torch.nn.ModuleList(
        ConformerBlock(dial, dropout, stochastic_depth=0.0) for _ in range(dial.layers)
    )

    def forward() -> torch.Tensor:
        mask = real_frames(lengths, frames, x.device)
        by = rotations(frames, dial.width // dial.heads)
        y = x
        for block in blocks:
            y = block(y, by, mask)
        return y

    return blocks, forward, x, lengths


def make_step(case: dict, system: str) -> tuple[Callable[[], None], float]:
    """(one forward and backward pass, seconds of audio in it)"""
    import torch

    torch.set_num_threads(case["threads"])
    model, forward, x, lengths = make_model(
        system, case["size"], case["dropout"], case["longest_seconds"]
    )
    gradient = torch.randn_like(x)

    def step() -> None:
        forward().backward(gradient)
        model.zero_grad()
        x.grad = None

    return step, float(lengths.sum()) / FRAMES_PER_SECOND


def time_both(case: dict, rounds: int, answer) -> None:
    """Sends (CPU seconds of each round by system, seconds of audio in a step)."""
    steps = {}
    for system in SYSTEMS:
        steps[system], audio = make_step(case, system)
        for _ in range(2):  # memory, and kernels chosen by shape
            steps[system]()
    taken: dict[str, list[float]] = {system: [] for system in SYSTEMS}
    for number in range(rounds):
        for system in SYSTEMS if number % 2 else SYSTEMS[::-1]:
            started = time.process_time()
            steps[system]()
            taken[system].append(time.process_time() - started)
    answer.send((taken, audio))


def weigh(case: dict, system: str, answer) -> None:
    """Sends (peak, idle) megabytes of this process."""
    step, _ = make_step(case, system)
    idle = peak_mb()
    for _ in range(3):
        step()
    answer.send((peak_mb(), idle))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def in_a_process(target: Callable, *arguments):
    """What ``target`` sends from a process of its own; raises ``RuntimeError`` if it dies before."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise RuntimeError(f"{target.__name__}: its process died") from None
    finally:
        process.join()


def measure(case: dict, rounds: int) -> list[dict]:
    """A row of each system."""
    taken, audio = in_a_process(time_both, case, rounds)
    rows = []
    for system in SYSTEMS:
        seconds = statistics.median(taken[system])
        peak, idle = in_a_process(weigh, case, system)
        rows.append(
            {
                "system": system,
                **case,
                "audio_seconds": audio,
                "seconds": seconds,
                "audio_seconds_per_second": audio / seconds,
                "peak_mb": peak,
                "idle_mb": idle,
            }
        )
    pairs = zip(*(taken[system] for system in SYSTEMS), strict=True)
    ratios = [theirs / ours for ours, theirs in pairs]
    rows[0]["ratio_to_torchaudio"] = statistics.median(ratios)
    rows[0]["ratio_quartiles"] = statistics.quantiles(ratios, n=4)[::2]
    return rows


def processor() -> str:
    """The CPU's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="JSON file for the rows")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", default="s", help="of the Conformer")
    parser.add_argument("--seconds", type=int, nargs="+", default=SECONDS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for the processes to come
    about = {
        "device": f"cpu ({processor()})",
        "precision": "fp32",
        **provenance(),
    }
    print(f"{'dropout':>7} {'longest':>8} {'system':12} {'audio s/s':>10} {'MB':>6} {'ratio':>6}")
    rows = []
    for dropout in DROPOUT:
        for seconds in options.seconds:
            case = {
                "size": options.size,
                "dropout": dropout,
                "longest_seconds": seconds,
                "threads": options.threads,
            }
            for row in measure(case, options.rounds):
                ratio = f"{row['ratio_to_torchaudio']:5.2f}×" if "ratio_quartiles" in row else ""
                print(
                    f"{dropout:7} {seconds:6} s {row['system']:12} "
                    f"{row['audio_seconds_per_second']:10.1f} {row['peak_mb']:6.0f} {ratio:>6}",
                    flush=True,
                )
                rows.append(row | about)
    if options.out:
        write_atomically(options.out, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
