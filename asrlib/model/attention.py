"""Self-attention with rotary positions.

Design choices:

* The paper's relative positions (Dai et al. 2019) add to each score a product of the query with an
  embedding of the distance: a second matrix of all scores that is made, shifted and added, one more
  D×D projection, and no fused kernel. Rotary positions (Su et al. 2021) turn queries and keys by an
  angle in proportion to their frame, after which a score depends on positions by their distance
  alone, and ``scaled_dot_product_attention`` computes it without ever holding all of them. In
  recognisers they are as accurate and faster to train (Li et al., Interspeech 2021; Zhang et al.,
  arXiv 2501.06051).
* Angles and rotations are float32. The rotation is one complex product, a third of the time of sines
  and cosines applied to halves.
* On a CPU the attention itself is float32 also under autocast: the backward pass of its bfloat16
  kernel takes two to three times as long (torch 2.11).
* On a GPU heads are padded with zeros to a multiple of ``ALIGNED`` values. Those of Conformer s have 36,
  for which there is no fused kernel with a mask: all scores were held in memory (H100, torch 2.11).
* No dropout of attention weights: it excludes the fused kernel on a CPU, at twice the time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ALIGNED = 8  # values
BASE = 10_000.0  # wavelengths go from 2π frames to 2π · BASE, as in the paper


def rotations(frames: int, head_width: int, device: torch.device | str = "cpu") -> Tensor:
    """complex64 [frames, 1, 1, head_width / 2]: what turns each pair of values at each frame."""
    exponents = torch.arange(0, head_width, 2, device=device, dtype=torch.float32) / head_width
    positions = torch.arange(frames, device=device, dtype=torch.float32)
    angles = torch.outer(positions, BASE**-exponents)
    return torch.polar(torch.ones_like(angles), angles).view(frames, 1, 1, -1)


def rotate(x: Tensor, by: Tensor) -> Tensor:
    """float32 [B, T, ., H, head_width], turned pair by pair; the length of a vector stays."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * by).flatten(-2)


class SelfAttention(nn.Module):
    """Every frame looks at every real frame of its utterance.

    Args:
        width: D.
        heads: H, of D / H values each, an even number.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"{heads} heads of an even width do not make {width}")
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, by: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, D] → [B, T, D].

        Args:
            by: ``rotations`` of T frames.
            mask: bool [B, T], True at real frames, at least one in a row; None if all are.
        """
        x = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.float32 if x.device.type == "cpu" else x.dtype
            query, key = rotate(x[:, :, :2].float(), by).to(dtype).transpose(1, 3).unbind(2)
            value = x[:, :, 2].to(dtype).transpose(1, 2)
            keys = None if mask is None else mask[:, None, None, :]
            y = attend(query, key, value, keys, aligned=x.is_cuda)
        return self.out(y.transpose(1, 2).flatten(2))


def attend(query: Tensor, key: Tensor, value: Tensor, keys: Tensor | None, aligned: bool) -> Tensor:
    """[B, H, T, head_width] → the same; ``keys`` as ``attn_mask`` of the fused kernel."""
    width = query.shape[-1]
    padding = -width % ALIGNED if aligned else 0
    if padding:
        query, key, value = (F.pad(x, (0, padding)) for x in (query, key, value))
    y = F.scaled_dot_product_attention(query, key, value, attn_mask=keys, scale=width**-0.5)
    return y[..., :width]
