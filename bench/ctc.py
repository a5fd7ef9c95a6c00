"""CTC's loss and gradient on a CPU: asrlib.model.ctc beside PyTorch's, in one thread and in turns.

python -m bench.ctc [FILE]    # a row for each shape, and how many times as fast ours is
"""

import json
import sys
import time
from pathlib import Path

import torch

from asrlib.files import write_atomically
from asrlib.model.ctc import ctc_losses
from asrlib.model.losses import torchs_losses
from asrlib.result import provenance
from bench.train import peak_mb, processor

SHAPES = ((8, 376, 29, 200), (8, 376, 29, 60), (16, 150, 29, 60), (8, 376, 512, 70))  # B, T', V, U
FRAME_SECONDS = 0.04  # of a Conformer's output
ROUNDS = 15
SYSTEMS = "asrlib", "torch"


def seconds(losses, log_probs, *rest) -> float:
    started = time.process_time()
    losses(log_probs.detach().requires_grad_(), *rest).sum().backward()
    return time.process_time() - started


def measure(size: int, frames: int, labels: int, length: int) -> list[dict]:
    """Rows of both systems for a batch of one shape; ours says how many times as fast it is."""
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(size, frames, labels, generator=generator).log_softmax(-1)
    targets = torch.randint(1, labels, (size, length), generator=generator)
    rest = torch.full((size,), frames), targets, torch.full((size,), length)
    both = ctc_losses, torchs_losses
    for losses in both:  # compiles
        seconds(losses, log_probs, *rest)
    rounds = [[seconds(losses, log_probs, *rest) for losses in both] for _ in range(ROUNDS)]
    audio = size * frames * FRAME_SECONDS
    shape = {"utterances": size, "frames": frames, "labels": labels, "text": length}
    rows = [
        {
            "system": system,
            **shape,
            "seconds": best,
            "audio_seconds": audio,
            "audio_seconds_per_second": audio / best,
            "peak_mb": peak_mb(),
        }
        for system, best in zip(SYSTEMS, map(min, zip(*rounds, strict=True)), strict=True)
    ]
    rows[0]["ratio_to_torch"] = rows[1]["seconds"] / rows[0]["seconds"]
    return rows


def main() -> None:
    torch.set_num_threads(1)
    about = {"device": f"cpu ({processor()})", "threads": 1} | provenance()
    rows = [row | about for shape in SHAPES for row in measure(*shape)]
    for row in rows[::2]:
        print({name: row[name] for name in ("utterances", "frames", "labels", "text")}, end=" ")
        print(
            f"{row['seconds'] * 1e3:.1f} ms, {row['ratio_to_torch']:.1f} times as fast as PyTorch's"
        )
    for path in map(Path, sys.argv[1:]):
        write_atomically(path, json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
