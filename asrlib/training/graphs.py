"""CUDA graphs: the encoder's forward and backward pass as one launch each.

A training step of a Conformer launches thousands of kernels, most of which a large GPU finishes before
the CPU has launched the next: how long a step takes is then up to the CPU. A CUDA graph has them all
recorded, and launches them at once (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).

Design choices:

* One recording serves one shape, so a batch is padded to a multiple of ``ROWS`` and ``FRAMES``, with
  empty rows and frames beyond each length, which reach nothing. A shape is recorded when it first comes.
* Lengths are on the device: what the CPU knows of a batch would be recorded with it.
* All recordings share one pool of memory, as only one of them is in use at a time: activations take as
  much as the largest shape's alone.
* Gradients come in the memory of the recording, which the next replay writes again. So there is one
  batch in a step.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

ROWS = 2
FRAMES = 128  # of features: 1.28 s
WARM_UP = 2  # passes before a recording, in which libraries make their plans


def record_encoder(encoder: nn.Module, device: torch.device, accumulate: int) -> bool:
    """Lets ``encoder``, or its ``listener``, train by recorded graphs; its parameters keep their names.

    Returns:
        whether it will: on a CPU there is nothing to record.

    Raises:
        ValueError: the encoder needs lengths on the CPU, or a step has several batches.
    """
    encoder = getattr(encoder, "listener", encoder)
    if not getattr(encoder, "takes_lengths_on_device", False):
        raise ValueError(
            f"trainer.graphs=true records conformer alone, not {type(encoder).__name__}: set it to false"
        )
    if accumulate > 1:
        raise ValueError(
            "trainer.graphs=true has one batch in a step: set trainer.accumulate=1, and a larger "
            "trainer.batch_seconds"
        )
    if device.type != "cuda":
        print(f"trainer.graphs=true has no effect on {device}")
        return False
    encoder.forward = RecordedForward(encoder)
    return True


class RecordedForward:
    """In place of ``encoder.forward``: the same, by a recording where gradients are wanted.

    Args:
        record: (module, arguments) → the module, recorded; may be another in tests.
    """

    def __init__(self, encoder: nn.Module, record: Callable = torch.cuda.make_graphed_callables):
        self.encoder, self.forward, self._record = encoder, encoder.forward, record
        self.recorded: dict[tuple[int, int], nn.Module] = {}  # by rows and frames
        self._pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None

    def __call__(self, spectrogram: Tensor, lengths: Tensor) -> dict:
        """float [B, F, T] and frames [B] → as ``encoder.forward``, of at least as many frames."""
        if not (self.encoder.training and torch.is_grad_enabled()):
            return self.forward(spectrogram, lengths)
        rows, _, frames = spectrogram.shape
        more_rows, more_frames = -rows % ROWS, -frames % FRAMES
        padded = F.pad(spectrogram, (0, more_frames, 0, 0, 0, more_rows))
        on_device = F.pad(lengths, (0, more_rows)).to(spectrogram.device, non_blocking=True)
        shape = (rows + more_rows, frames + more_frames)
        if shape not in self.recorded:
            self.recorded[shape] = self._recording(padded, on_device)
        out = tree_map(lambda x: x[:rows], self.recorded[shape](padded, on_device))
        return out | {"log_probs_length": self.encoder.output_length(lengths)}

    def _recording(self, spectrogram: Tensor, lengths: Tensor) -> nn.Module:
        device = spectrogram.device.type
        with torch.autocast(
            device,
            torch.get_autocast_dtype(device),
            enabled=torch.is_autocast_enabled(device),
            cache_enabled=False,  # a copy of a weight made outside a recording would stay as it is
        ):
            return self._record(
                OnDevice(self.encoder, self.forward),
                (spectrogram.clone(), lengths.clone()),
                num_warmup_iters=WARM_UP,
                pool=self._pool,
            )


class OnDevice(nn.Module):
    """What of ``encoder``'s ``forward`` is computed on the device."""

    def __init__(self, encoder: nn.Module, forward: Callable):
        super().__init__()
        self.encoder, self._forward = encoder, forward

    def forward(self, spectrogram: Tensor, lengths: Tensor) -> dict:
        out = self._forward(spectrogram, lengths)
        return {name: value for name, value in out.items() if name != "log_probs_length"}
