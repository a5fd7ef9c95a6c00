"""Listen, Attend and Spell: a listener's frames, and a speller that looks at them label by label.

Chan et al., "Listen, attend and spell", ICASSP 2016; the attention is that of Chorowski et al.,
"Attention-based models for speech recognition", NIPS 2015, which also sees where it looked before.

Design choices:

* The listener is any encoder with CTC labels, ``pyramid.py``'s or another. Its CTC head stays: it is
  trained beside the speller (``loss=joint``), or not at all (``loss=attention``).
* CTC's blank, which a speller has no use for, is its start and end of the text: V is one for both.
* Attention sees two rows of its past: where it looked last, and the sum of where it has looked.
* The speller is float32 also under autocast: its steps are too small for shorter formats to pay.
* Training and decoding take the same step, on [B, N]: N is 1 in training, the beam in decoding, whose
  hypotheses share the frames of their utterance. The way back is ``unrolled.py``'s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrlib.model.dropout import Dropout
from asrlib.model.masking import length_mask
from asrlib.model.unrolled import unroll
from asrlib.text import BLANK

EOS = BLANK  # start and end of a text
COVERED = 0.5  # a frame is covered once it had this much attention (Chorowski and Jaitly 2017)


@dataclass(frozen=True)
class Size:
    """What the dial ``size`` stands for."""

    width: int  # of label embeddings and LSTM cells
    attention: int  # A: where queries, frames and past attention are compared
    layers: int  # LSTM cells


# Larger ones are the paper's two layers; its width is that of m.
SIZES = {
    "xxs": Size(width=64, attention=48, layers=1),
    "xs": Size(width=192, attention=128, layers=1),
    "s": Size(width=256, attention=128, layers=2),
    "m": Size(width=512, attention=256, layers=2),
    "l": Size(width=768, attention=320, layers=2),
}


class Memory(NamedTuple):
    """What the speller looks at."""

    encoded: Tensor  # float32 [B, T', D]
    keys: Tensor  # float32 [B, T', A]
    mask: Tensor  # bool [B, T'], True at real frames


class SpellerState(NamedTuple):
    """Where the speller stands in N texts of each utterance, float32."""

    cells: Tensor  # [B, N, layers, 2, width], outputs and cells of the LSTM
    context: Tensor  # [B, N, D], what was seen last
    attention: Tensor  # [B, N, 2, T'], of the last step, and the sum of all steps

    @property
    def query(self) -> Tensor:
        """[B, N, width]: the last layer's output, which asked for ``context``."""
        return self.cells[:, :, -1, 0]


class Speller(nn.Module):
    """Location-aware attention and an LSTM that is fed with what was seen (input feeding).

    Args:
        encoded_width: D of the frames.
        vocabulary_size: labels V.
        size: one of ``SIZES``.
        dropout: of embeddings, between the layers and before the labels.
        sampling: how often, in training, the label before is one that the speller itself draws
            (scheduled sampling, Bengio et al. 2015), by torch's global generator.
    """

    CHANNELS, KERNEL = 10, 31  # of the convolution over past attention: 10 as in the paper

    def __init__(
        self, encoded_width: int, vocabulary_size: int, size: Size, dropout: float, sampling: float
    ):
        super().__init__()
        self.sampling = sampling
        width = size.width
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.cells = nn.ModuleList(
            nn.LSTMCell(width + encoded_width if i == 0 else width, width)
            for i in range(size.layers)
        )
        self.key = nn.Linear(encoded_width, size.attention)
        self.query = nn.Linear(width, size.attention, bias=False)
        self.location = nn.Conv1d(
            2, self.CHANNELS, self.KERNEL, padding=self.KERNEL // 2, bias=False
        )
        self.location_key = nn.Linear(self.CHANNELS, size.attention, bias=False)
        self.energy = nn.Linear(size.attention, 1, bias=False)
        self.out = nn.Linear(width + encoded_width, width)
        self.head = nn.Linear(width, vocabulary_size)
        self.dropout = Dropout(dropout)

    def remember(self, encoded: Tensor, lengths: Tensor) -> Memory:
        """[B, T', D], frames [B] → what ``step`` reads. An empty row counts as one frame."""
        mask = length_mask(lengths.clamp(min=1), encoded.shape[1], encoded.device)
        return Memory(encoded.float(), self.key(encoded.float()), mask)

    def start(self, memory: Memory, texts: int = 1) -> SpellerState:
        """The state before the first label of N = ``texts`` of each utterance."""
        batch, frames, width = memory.encoded.shape
        zeros = memory.encoded.new_zeros
        return SpellerState(
            cells=zeros(batch, texts, len(self.cells), 2, self.embedding.embedding_dim),
            context=zeros(batch, texts, width),
            attention=zeros(batch, texts, 2, frames),
        )

    def advance(
        self, label: Tensor, memory: Memory, state: SpellerState, factors: Tensor | None = None
    ) -> SpellerState:
        """Looks for the next label, given the one before, int [B, N] (``EOS`` at the start).

        Args:
            factors: float32 [B, N, layers, width], of dropout of what each layer gets; None for none.
        """
        shape, cells, x = label.shape, [], self.embedding(label)
        for number, cell in enumerate(self.cells):
            if factors is not None:
                x = x * factors[:, :, number]
            if number == 0:
                x = torch.cat([x, state.context], dim=-1)
            hidden = cell(x.flatten(0, 1), state.cells[:, :, number].flatten(0, 1).unbind(1))
            cells.append(torch.stack(hidden, dim=1))
            x = hidden[0].unflatten(0, shape)
        attention = self._attend(x, memory, state.attention)
        past = torch.stack([attention, state.attention[:, :, 1] + attention], dim=2)
        cells = torch.stack(cells, dim=1).unflatten(0, shape)
        return SpellerState(cells, attention @ memory.encoded, past)

    def spell(self, query: Tensor, context: Tensor) -> Tensor:
        """[…, width] and [..., D] of a state → logits [..., V] of the label that was looked for."""
        return self.head(self.dropout(self.out(torch.cat([query, context], dim=-1)).tanh()))

    def step(
        self, label: Tensor, memory: Memory, state: SpellerState
    ) -> tuple[Tensor, SpellerState]:
        """The label before, int [B, N] (``EOS`` at the start) → logits [B, N, V] of the next."""
        state = self.advance(label, memory, state)
        return self.spell(state.query, state.context), state

    def _attend(self, query: Tensor, memory: Memory, past: Tensor) -> Tensor:
        """[B, N, width], [B, N, 2, T'] → attention [B, N, T']: 0 on padding, real frames sum to 1."""
        asked = memory.keys.unsqueeze(1) + self.query(query).unsqueeze(2)
        compared = self.compare(asked.flatten(0, 1), self.location(past.flatten(0, 1)))
        energy = self.energy(compared).view(*query.shape[:2], -1)
        return energy.masked_fill(~memory.mask.unsqueeze(1), -torch.inf).softmax(dim=-1)

    def compare(self, asked: Tensor, location: Tensor) -> Tensor:
        """What the energies are made of, [M, T', A].

        Args:
            asked: [M, T', A], keys and query added; overwritten.
            location: [M, CHANNELS, T'], features of past attention.
        """
        weight = self.location_key.weight.T.expand(len(asked), -1, -1)
        asked = asked.baddbmm_(location.transpose(1, 2), weight)
        # tanh, by the sigmoid: on a CPU a third of torch.tanh's time
        return asked.mul_(2).sigmoid_().mul(2).sub_(1)

    def forward(self, encoded: Tensor, lengths: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Spells texts that are known: the label before is the true one, but for ``sampling``.

        Args:
            encoded, lengths: float [B, T', D] and frames int [B].
            text: labels int [B, U] on the same device; beyond a text's length anything.

        Returns:
            ``attention_logits`` float32 [B, U + 1, V] for each label and the end, and ``attention``
            float32 [B, U + 1, T'].
        """
        before = F.pad(text, (1, 0), value=EOS)
        with torch.autocast(encoded.device.type, enabled=False):
            memory = self.remember(encoded, lengths)
            shape = *before.shape, len(self.cells), self.embedding.embedding_dim
            factors = self.dropout(memory.encoded.new_ones(shape)) if self.training else None
            queries, contexts, attention = unroll(self, memory, before, factors)
            return {
                "attention_logits": self.spell(queries, contexts),
                "attention": attention,
            }

    def mix(self, label: Tensor, logits: Tensor) -> Tensor:
        """[B, 1], some of them replaced by a label that is drawn from ``logits`` [B, 1, V]."""
        chances = logits.detach().squeeze(1).softmax(dim=-1)
        # as torch.multinomial, but for its checks, at each of which a GPU would have to be waited for
        drawn = (chances / torch.empty_like(chances).exponential_()).argmax(dim=-1, keepdim=True)
        replaced = torch.rand(label.shape, device=label.device) < self.sampling
        return torch.where(replaced, drawn, label)


class LAS(nn.Module):
    """An encoder with CTC labels as listener, and a speller.

    Args:
        n_mels: mel bins F of the input.
        vocabulary_size: labels V.
        listener: makes an encoder, given ``n_mels`` and ``vocabulary_size``. Its ``head`` is the
            linear layer from ``encoded`` [B, T', D], which it has in its output, to CTC's labels.
        size: of the speller, one of ``SIZES``.
        dropout, sampling: of the ``Speller``.

    Raises:
        ValueError: an unknown size, or a rate outside [0, 1).
    """

    def __init__(
        self,
        n_mels: int,
        vocabulary_size: int,
        listener: Callable[..., nn.Module],
        size: str = "s",
        dropout: float = 0.1,
        sampling: float = 0.1,
    ):
        super().__init__()
        if size not in SIZES or not 0 <= sampling < 1:
            raise ValueError(
                f"LAS has sizes {list(SIZES)} and sampling in [0, 1), not {size!r}, {sampling!r}"
            )
        self.listener = listener(n_mels=n_mels, vocabulary_size=vocabulary_size)
        self.stride = self.listener.stride
        width = self.listener.head.in_features
        self.speller = Speller(width, vocabulary_size, SIZES[size], dropout, sampling)

    def output_length(self, lengths: Tensor) -> Tensor:
        """Encoder frames T' of feature frames T."""
        return self.listener.output_length(lengths)

    def forward(
        self, spectrogram: Tensor, spectrogram_length: Tensor, text: Tensor | None = None
    ) -> dict[str, Tensor | list[Tensor]]:
        """float [B, F, T] and frames [B] → the listener's output.

        With ``text``, labels int [B, U] on the same device, also that of ``Speller.forward``.
        """
        out = self.listener(spectrogram, spectrogram_length)
        if text is None:
            return out
        return out | self.speller(out["encoded"], out["log_probs_length"], text)

    def compile(self, *arguments, **options) -> None:
        """The listener alone: the speller takes as many steps as a text has labels."""
        self.listener.compile(*arguments, **options)
