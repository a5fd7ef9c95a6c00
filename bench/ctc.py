"""CTC's loss and gradient on a CPU: asrlib.model.ctc beside PyTorch's, in one thread and in turns.

python -m bench.ctc [FILE]    # a row for each shape, and how many times as fast ours is
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from asrlib.files import write_atomically
from asrlib.model.ctc import ctc_losses
from asrlib.result import command_line, current_commit, now
from bench.train import processor

SHAPES = ((8, 376, 29, 200), (8, 376, 29, 60), (16, 150, 29, 60), (8, 376, 512, 70))  # B, T', V, U
ROUNDS = 15


def torchs_losses(log_probs, frames, targets, lengths):
    return F.ctc_loss(log_probs.transpose(0, 1), targets, frames, lengths, reduction="none")


def seconds(losses, log_probs, *rest) -> float:
    started = time.process_time()
    losses(log_probs.detach().requires_grad_(), *rest).sum().backward()
    return time.process_time() - started


def measure(size: int, frames: int, labels: int, length: int) -> dict:
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(size, frames, labels, generator=generator).log_softmax(-1)
    targets = torch.randint(1, labels, (size, length), generator=generator)
    rest = torch.full((size,), frames), targets, torch.full((size,), length)
    both = ctc_losses, torchs_losses
    for losses in both:  # compiles
        seconds(losses, log_probs, *rest)
    found = [[seconds(losses, log_probs, *rest) for losses in both] for _ in range(ROUNDS)]
    ours, theirs = map(min, zip(*found, strict=True))
    shape = {"utterances": size, "frames": frames, "labels": labels, "text": length}
    return shape | {"seconds": ours, "torch_seconds": theirs, "ratio": theirs / ours}


def main() -> None:
    torch.set_num_threads(1)
    about = {"device": processor(), "commit": current_commit(), "date": now()}
    about["command"] = command_line()
    rows = [measure(*shape) | about for shape in SHAPES]
    for row in rows:
        print({name: row[name] for name in ("utterances", "frames", "labels", "text")}, end=" ")
        print(f"{row['seconds'] * 1e3:.1f} ms, {row['ratio']:.1f} times as fast as PyTorch's")
    for path in map(Path, sys.argv[1:]):
        write_atomically(path, json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
