"""What each size of a model costs: the tables in ``configs/model/*.yaml``, computed, not remembered.

python -m asrlib.model.table            prints them
python -m asrlib.model.table --write    brings the configurations up to date

A configuration has a table where a comment begins with "# size"; its lines name the sizes, and a line
"# name" is enough for a new one. 80 mel bins, 29 labels, all other options as in the file.

Design choices:

* A configuration is what ``train.py model=NAME`` makes of the file, so it may be made of several.
* A model with a speller spells ``LABELS_PER_SECOND``, as fast as an English reader's letters are.
* Nothing is computed, only shapes (fake tensors), so 300 M parameters take no memory, and the tensors
  can pretend to be on a GPU and obey the rules of autocast there.
* GFLOP of the forward pass, a multiplication and an addition counting as two; training takes about
  three times as much. Matrix products and convolutions count, the rest is small.
* The batch is what fits a T4 when 90 % of its memory hold weights, gradients, AdamW's moments (float32),
  float16 copies of the weights, and the activations that the backward pass needs. The last are counted
  at two batch sizes: their difference is what an utterance adds. An estimate, to begin with.
"""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import asrlib.configs
from asrlib.build import build
from asrlib.configs import compose
from asrlib.model.features import HOP

CONFIGS = Path(asrlib.configs.__file__).parent / "model"
TABLE = re.compile(r"^# size\b.*\n(?:# .*\n)*", re.MULTILINE)
HEADER = (
    "# size  parameters  GFLOP per second of audio  seconds of audio in a batch on a T4 (16 GB)\n"
)

N_MELS = 80
LABELS = 29
LABELS_PER_SECOND = 15
SECONDS = 10  # of each utterance
FRAMES = SECONDS * 16_000 // HOP
USED = 0.9  # of a GPU's memory; the rest is for the allocator and the libraries
T4_BYTES = 16e9 * USED
PARAMETER_BYTES = 4 * 4 + 2  # weight, gradient, two moments in float32; the weight in float16
CELL_VALUES = 5  # kept per recurrent unit and frame: the workspace of PyTorch's fused GRU cell


@dataclass(frozen=True)
class Cost:
    parameters: int
    flops: float  # per second of audio
    batch_seconds: float  # 0 where not even the weights fit


class _RecurrentProducts(torch.autograd.Function):
    """The matrix products of a recurrent layer over all frames, and what its backward pass needs.

    x [B, T, D], then for each direction the weights of the input and of the hidden state.
    """

    @staticmethod
    def forward(ctx, x, *weights):
        from_input, from_hidden = weights[::2], weights[1::2]
        states = [x.new_empty(*x.shape[:-1], w.shape[1]) for w in from_hidden]
        for values, weight in zip(
            [x] * len(states) + states, from_input + from_hidden, strict=True
        ):
            F.linear(values, weight)
        y = torch.cat(states, dim=-1)
        ctx.save_for_backward(x, y, y.new_empty(CELL_VALUES, *y.shape))
        return y


def _recurrent_forward(rnn: nn.RNNBase, x: Tensor) -> tuple[Tensor, None]:
    """Stands for an LSTM or GRU, whose fused kernels neither counter can look into."""
    directions = 2 if rnn.bidirectional else 1
    x = x.half()
    for layer in range(rnn.num_layers):
        weights = rnn.all_weights[layer * directions : (layer + 1) * directions]
        x = _RecurrentProducts.apply(x, *(w for pair in weights for w in pair[:2]))
    return x, None


def _forward(make: Callable[[], nn.Module], utterances: int) -> tuple[int, int, int]:
    """(parameters, FLOP, bytes kept for the backward pass) of one training step under autocast."""
    storages = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage  # also holds it, lest another takes its address
        return tensor

    with FakeTensorMode():
        # without cuDNN, a recurrent layer does not ask for the addresses of its weights
        with torch.device("cuda"), torch.backends.cudnn.flags(enabled=False):
            model = make().train()
            inputs = [torch.empty(utterances, N_MELS, FRAMES)]
            text = torch.zeros(utterances, LABELS_PER_SECOND * SECONDS, dtype=torch.long)
        for module in model.modules():
            if isinstance(module, nn.RNNBase):
                module.forward = partial(_recurrent_forward, module)
        inputs.append(torch.full((utterances,), FRAMES))
        if hasattr(model, "speller"):
            inputs.append(text)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        # torch.autocast would disable itself where there is no GPU
        before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.float16)
        try:
            with FlopCounterMode(display=False) as counter, hooks:
                model(*inputs)
        finally:
            torch.set_autocast_enabled("cuda", before[0])
            torch.set_autocast_dtype("cuda", before[1])
            torch.clear_autocast_cache()
        parameters = sum(p.numel() for p in model.parameters())
    return parameters, counter.get_total_flops(), sum(s.nbytes() for s in storages.values())


def cost(make: Callable[[], nn.Module], memory: float = T4_BYTES) -> Cost:
    """What the encoder that ``make`` makes costs; it is made of fake tensors, on a pretended GPU.

    Args:
        memory: bytes of the GPU that the batch should fill.
    """
    parameters, flops, one = _forward(make, 1)
    two = _forward(make, 2)[2]
    free = max(0.0, memory - PARAMETER_BYTES * parameters)
    return Cost(parameters, flops / SECONDS, free / ((two - one) / SECONDS))


def _line(size: str, row: Cost) -> str:
    def two_digits(value: float) -> str:
        return f"{float(f'{value:.2g}'):,.0f}"

    parameters = f"{row.parameters / 1e6:.1f} M"
    return (
        f"# {size:<6}{parameters:>10}{row.flops / 1e9:>27.2f}{two_digits(row.batch_seconds):>47}\n"
    )


def update(name: str, configuration: str) -> str:
    """The text of the configuration of the model ``name``, with the table in it, if any, computed anew."""

    def table(match: re.Match) -> str:
        lines = [HEADER]
        for line in match.group().splitlines()[1:]:
            size = line.split()[1]
            section = compose("train", f"model={name}", f"model.size={size}").model
            make = partial(build, section, n_mels=N_MELS, vocabulary_size=LABELS)
            lines.append(_line(size, cost(make)))
        return "".join(lines)

    return TABLE.sub(table, configuration)


def main() -> None:
    parser = argparse.ArgumentParser(description="What each size of each model costs.")
    parser.add_argument("--write", action="store_true", help="update the configurations")
    arguments = parser.parse_args()
    for path in sorted(CONFIGS.glob("*.yaml")):
        text = update(path.stem, path.read_text(encoding="utf-8"))
        for found in TABLE.findall(text):
            print(f"{path.stem}\n{found}")
        if arguments.write:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
