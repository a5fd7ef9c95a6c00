"""The search of ``asrlib.decoding.attention``, in all utterances of a batch at once.

Nothing knows the length of a text in advance:

* A text ends where its end is among the best of all continuations. An utterance is done when nothing
  that is still being written can come before the n best that ended: scores only fall, but for the
  terms of coverage and language model, which ``MARGIN`` makes up for.
* CTC punishes whatever leaves speech out or writes it twice. Attention alone does not, so there the
  frames that got attention count (Chorowski and Jaitly, "Towards better decoding and language model
  integration in sequence to sequence models", Interspeech 2017), and a text is over once ``STALL``
  labels in a row looked no further than those before: what stares or reads again is no more speech.
  They are taken off it, but not out of its score: it shall not win over a text that ended by itself.
  One look far ahead is no progress, for it may be a slip; two in a row are.
* No text has more than ``LABELS_PER_FRAME`` labels a frame: with frames of 40 ms three times as many
  letters as in speech, with frames of 80 ms still more than there are.

All hypotheses of an utterance share its frames; utterances leave the batch when they are done.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from asrlib.decoding.ctc_prefix import CTCPrefixScorer
from asrlib.model.las import COVERED, EOS, Memory, SpellerState
from asrlib.text import BLANK

if TYPE_CHECKING:
    from asrlib.decoding.attention import AttentionDecoder

MARGIN = 10.0  # natural logarithm
STALL = 10  # labels
LABELS_PER_FRAME = 2
TRIED = 2  # times the beam's width: labels of attention that CTC ranks after a text
LEAST_TRIED = 16


class Node(NamedTuple):
    """A label of a text, the frame that got most attention for it, and the node before."""

    label: int
    frame: int
    before: Node | None


class Beam(NamedTuple):
    """K texts being written in each of B utterances; scores are natural logarithms in float64."""

    score: Tensor  # [B, K]; -inf where there is no text
    spelled: Tensor  # [B, K], ln p of attention
    words: Tensor  # [B, K], the language model's part
    last: Tensor  # int64 [B, K]
    peak: Tensor  # int64 [B, K], the frame that got most attention for the last label
    furthest: Tensor  # int64 [B, K], the last frame up to which two labels in a row have looked
    stalled: Tensor  # int64 [B, K], labels since that was an earlier one
    ctc: Tensor | None  # state of CTCPrefixScorer
    speller: SpellerState


class Search:
    """Of ``decoder``, for the ``n`` best texts of each utterance; other arguments as it has them."""

    def __init__(
        self,
        decoder: AttentionDecoder,
        log_probs: Tensor,
        lengths: Tensor,
        encoded: Tensor,
        n: int,
    ):
        self.decoder, self.n, self.width = decoder, n, decoder.beam_width
        self.speller, self.fusion = decoder.speller, decoder.fusion
        self.ended: list[list[tuple[float, Node | None]]] = [[] for _ in lengths]
        # what can raise a score
        self.margin = MARGIN if decoder.coverage or self.fusion is not None else 0.0
        # from here on B are the utterances at work
        self.numbers = _with_sound(log_probs, lengths)
        self.room = [LABELS_PER_FRAME * int(lengths[i]) for i in self.numbers]  # for labels
        rows = torch.tensor(self.numbers, dtype=torch.long, device=encoded.device)
        lengths = lengths.to(encoded.device)[rows]
        self.memory = self.speller.remember(encoded[rows], lengths)
        self.ctc = None
        if decoder.ctc_weight:
            self.ctc = CTCPrefixScorer(log_probs.to(encoded.device)[rows], lengths)
        self.beam = self._first_beam()
        self.nodes: list[list[Node | None]] = [[None] * self.width for _ in rows]
        if self.fusion is not None:
            self.writing: list[list[Any]] = [[self.fusion.start()] * self.width for _ in rows]
            self.ends_word = torch.tensor(self.fusion.ends_word, device=encoded.device)

    def _first_beam(self) -> Beam:
        zeros = self.memory.keys.new_zeros(len(self.numbers), self.width, dtype=torch.float64)
        score, counts = zeros.clone(), zeros.long()
        score[:, 1:] = -torch.inf  # the empty text, once
        ctc = None if self.ctc is None else self.ctc.start(self.width)
        state = self.speller.start(self.memory, self.width)
        return Beam(score, zeros, zeros, counts + EOS, counts, counts - 1, counts, ctc, state)

    def run(self) -> list[list[tuple[float, Node | None]]]:
        """(score, last node) of the n best texts of each utterance, best first; at least one."""
        while self.numbers:
            self._step()
        return [self._best(ended) for ended in self.ended]

    def _best(self, ended: list[tuple[float, Node | None]]) -> list[tuple[float, Node | None]]:
        """Of those that ended, each text once: two that are shortened may be the same."""
        different = {}
        for score, node in sorted(ended, key=lambda text: text[0]):
            different[tuple(n.label for n in path_of(node))] = score, node
        best = sorted(different.values(), key=lambda text: -text[0])
        return best[: self.n] or [(0.0, None)]  # of an utterance without frames

    def _step(self) -> None:
        """Writes one label more in every utterance."""
        beam, weight = self.beam, self.decoder.ctc_weight
        logits, speller = self.speller.step(beam.last, self.memory, beam.speller)
        labels = self._tried(logits)  # [B, K, C], the end first
        spelled = logits.double().log_softmax(-1).gather(-1, labels) + beam.spelled.unsqueeze(-1)
        total = (1 - weight) * spelled
        if self.ctc is not None:
            prefix = self.ctc.extended(beam.ctc, beam.last, labels)
            prefix[..., 0] = self.ctc.whole(beam.ctc)
            total = total + weight * prefix
        words = beam.words.unsqueeze(-1).expand_as(total)
        if self.fusion is not None:
            words = words + self._closings(labels)
        covered = (speller.attention[:, :, 1] > COVERED).sum(-1)
        total = total + words + self.decoder.coverage * covered.unsqueeze(-1)
        if self.fusion is not None:
            total = total + self._ahead(labels)
        total = total.masked_fill((beam.score == -torch.inf).unsqueeze(-1), -torch.inf)
        score, index = total.flatten(1).topk(self.width)
        parent = index // labels.shape[-1]
        label, spelled, words = (x.flatten(1).gather(1, index) for x in (labels, spelled, words))
        peak = speller.attention[:, :, 0].argmax(-1)
        reached = torch.minimum(peak, beam.peak)
        stalled = torch.where(reached > beam.furthest, 0, beam.stalled + 1)
        furthest = torch.maximum(reached, beam.furthest)
        rows, scores = self._sort(*(x.tolist() for x in (parent, label, peak, stalled, score)))
        score = score.new_tensor(scores)
        grown = Beam(score, spelled, words, label, peak, furthest, stalled, beam.ctc, speller)
        self._go_on(torch.tensor(rows, dtype=torch.long, device=score.device), parent, grown)

    def _go_on(self, rows: Tensor, parent: Tensor, grown: Beam) -> None:
        """Leaves the utterances that are not among ``rows`` int64 [n], and makes the next beam.

        Args:
            parent: int64 [B, K], the place in the beam so far of what each text continues.
            grown: scores and labels of the new texts; all else is still that of their parents.
        """
        kept = (rows.unsqueeze(1) * self.width + parent[rows]).flatten()

        def of_parent(x: Tensor) -> Tensor:
            return x.flatten(0, 1)[kept].unflatten(0, (len(rows), self.width))

        if len(rows) < len(parent):
            self.memory = Memory(*(x[rows] for x in self.memory))
            if self.ctc is not None:
                self.ctc.select(rows)
        label, ctc = grown.last[rows], None
        if self.ctc is not None:
            ctc = self.ctc.extend(of_parent(grown.ctc), of_parent(self.beam.last), label)
        self.beam = Beam(
            score=grown.score[rows],
            spelled=grown.spelled[rows],
            words=grown.words[rows],
            last=label,
            peak=of_parent(grown.peak),
            furthest=of_parent(grown.furthest),
            stalled=of_parent(grown.stalled),
            ctc=ctc,
            speller=SpellerState(*map(of_parent, grown.speller)),
        )

    def _tried(self, logits: Tensor) -> Tensor:
        """The labels int64 [B, K, C] that may come next; ``EOS`` is the first."""
        count = max(TRIED * self.width, LEAST_TRIED)
        if self.decoder.ctc_weight == 1:  # attention has no say
            count = logits.shape[-1]
        labels = logits[..., 1:].topk(min(count, logits.shape[-1] - 1)).indices + 1
        return F.pad(labels, (1, 0), value=EOS)

    def _closings(self, labels: Tensor) -> Tensor:
        """[B, K, C]: what the language model says where a word ends, or the text."""
        closings = [[self.fusion.closing(writing) for writing in row] for row in self.writing]
        word, end = (
            torch.tensor(
                [[closing[i] for closing in row] for row in closings],
                dtype=torch.float64,
                device=labels.device,
            )
            for i in (0, 1)
        )
        said = self.ends_word[labels] * word.unsqueeze(-1)
        said[..., 0] = word + end
        return said

    def _ahead(self, labels: Tensor) -> Tensor:
        """[B, K, C]: the language model's guess at the word that each label goes on writing."""
        ahead = [
            [
                [0.0, *(self.fusion.ahead(writing, label) for label in tried)]
                for writing, tried in zip(*row, strict=True)
            ]
            for row in zip(self.writing, labels[..., 1:].tolist(), strict=True)
        ]
        return torch.tensor(ahead, dtype=torch.float64, device=labels.device)

    def _sort(
        self,
        parents: list[list[int]],
        labels: list[list[int]],
        peaks: list[list[int]],
        stalled: list[list[int]],
        scores: list[list[float]],
    ) -> tuple[list[int], list[list[float]]]:
        """Sorts new texts, lists [B][K], into those that ended and those that go on.

        Args:
            peaks, stalled: of the parents' places.

        Returns:
            rows of the utterances that are not done, and the scores, -inf for what ended.
        """
        before, rows = self.nodes, []
        self.nodes = [[None] * self.width for _ in before]
        writing = None if self.fusion is None else [[*texts] for texts in self.writing]
        for row, number in enumerate(self.numbers):
            for place, (parent, label) in enumerate(zip(parents[row], labels[row], strict=True)):
                score, node = scores[row][place], before[row][parent]
                if score == -math.inf:
                    continue
                if label != EOS:
                    node = Node(label, peaks[row][parent], node)
                    if self.decoder.ctc_weight or stalled[row][parent] < STALL:
                        self.nodes[row][place] = node
                        if writing is not None:
                            text = self.writing[row][parent]
                            writing[row][place] = self.fusion.write(text, label)
                        continue
                    for _ in range(stalled[row][parent]):
                        node = node.before
                self.ended[number].append((score, node))
                scores[row][place] = -math.inf
            self.room[row] -= 1
            if not self._is_done(row, scores[row]):
                rows.append(row)
        self.numbers, self.room, self.nodes = (
            [x[row] for row in rows] for x in (self.numbers, self.room, self.nodes)
        )
        if writing is not None:
            self.writing = [writing[row] for row in rows]
        return rows, scores

    def _is_done(self, row: int, scores: list[float]) -> bool:
        """Whether the search is over in an utterance whose texts that go on have these scores."""
        ended = self.ended[self.numbers[row]]
        if self.room[row] == 0 and not ended:
            ended += [x for x in zip(scores, self.nodes[row], strict=True) if x[0] > -math.inf]
        if self.room[row] == 0 or max(scores) == -math.inf:
            return True
        best = heapq.nlargest(self.n, (score for score, _ in ended))
        return len(best) == self.n and best[-1] >= max(scores) + self.margin


def _with_sound(log_probs: Tensor, lengths: Tensor) -> list[int]:
    """Places of utterances that have frames of which not all are certain of the blank, as silence is."""
    beyond = torch.arange(log_probs.shape[1]) >= lengths.cpu().unsqueeze(1)
    silent = (log_probs[..., BLANK] == 0).cpu() | beyond
    return (~silent.all(1)).nonzero().flatten().tolist()


def path_of(node: Node | None) -> list[Node]:
    """The nodes of a text, from its first label."""
    path = []
    while node is not None:
        path.append(node)
        node = node.before
    return path[::-1]
