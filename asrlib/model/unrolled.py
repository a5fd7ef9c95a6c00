"""A speller's steps along known texts, with a backward pass of their own.

Backpropagation through time (Werbos, "Backpropagation through time: what it does and how to do it", 1990).

Design choices:

* Autograd would make a gradient of every weight at every label: most of the time of a training with a
  speller, and on a GPU hundreds of launches a label. Here a step back makes only what the step before
  it waits for. The rest follows for all labels at once, from what the steps have left.
* Steps forward are the speller's own (``advance``), without a graph. What is kept of them are its states;
  gates and features are computed again, for all labels at once where they can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from asrlib.model.las import Memory, Speller


def unroll(
    speller: Speller, memory: Memory, text: Tensor, factors: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Takes S steps along one text of each utterance.

    Args:
        text: int [B, S], the label before each step.
        factors: float32 [B, S, layers, width], of dropout, as for ``advance``; None for none.

    Returns:
        what each step asks with, float32 [B, S, width], the context that it finds, [B, S, D], and its
        attention [B, S, T'].
    """
    weights = [speller.embedding.weight]
    for cell in speller.cells:
        weights += [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    attention = speller.query, speller.location, speller.location_key, speller.energy
    weights += [layer.weight for layer in attention]
    return _Unrolled.apply(speller, memory, text, factors, memory.encoded, memory.keys, *weights)


class _Unrolled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, speller, memory, text, factors, encoded, keys, *weights):
        states, labels = [speller.start(memory)], []
        for step in range(text.shape[1]):
            label = text[:, step : step + 1]
            if step and speller.training and speller.sampling:
                label = speller.mix(label, speller.spell(states[-1].query, states[-1].context))
            now = None if factors is None else factors[:, step : step + 1]
            states.append(speller.advance(label, memory, states[-1], now))
            labels.append(label)
        cells = torch.cat([state.cells for state in states], dim=1)  # [B, S + 1, layers, 2, width]
        contexts = torch.cat([state.context for state in states], dim=1)
        attention = torch.cat([state.attention[:, :, 0] for state in states], dim=1)
        ctx.speller = speller
        ctx.save_for_backward(
            torch.cat(labels, dim=1), factors, encoded, keys, cells, contexts, attention
        )
        return cells[:, 1:, -1, 0], contexts[:, 1:], attention[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_queries, grad_contexts, grad_attention):
        labels, factors, encoded, keys, cells, contexts, attention = ctx.saved_tensors
        speller, steps = ctx.speller, labels.shape[1]
        lstm = _LSTMBackward(speller, labels, factors, cells, contexts)
        attending = _AttentionBackward(speller, encoded, keys, cells[:, 1:, -1, 0], attention)
        grad_context = torch.zeros_like(contexts[:, 0])  # from the step after
        for step in reversed(range(steps)):
            attending.grad_contexts[:, step] = grad_contexts[:, step] + grad_context
            grad_query = grad_queries[:, step] + attending.back(step, grad_attention[:, step])
            grad_context = lstm.back(step, grad_query)
        weights = *lstm.of_weights(), *attending.of_weights()
        return None, None, None, None, *attending.of_memory(), *weights


class _LSTMBackward:
    """Of all cells: of their gates, in torch's order, all but the gradient from later is known before."""

    def __init__(self, speller, labels, factors, cells, contexts):
        self.speller, self.labels, self.factors = speller, labels, factors
        embedded = F.embedding(labels, speller.embedding.weight)
        below = [embedded, *cells[:, 1:, :-1, 0].unbind(2)]
        if factors is not None:
            below = [x * kept for x, kept in zip(below, factors.unbind(2), strict=True)]
        below[0] = torch.cat([below[0], contexts[:, :-1]], dim=-1)
        self.inputs, self.hidden = below, cells[:, :-1, :, 0].unbind(2)
        self.grad_gates, self.forget = [], []
        self.of_state, self.of_output, self.through = [], [], []
        for number, cell in enumerate(speller.cells):
            before, after = cells[:, :-1, number, 1], cells[:, 1:, number, 1].tanh()
            gates = F.linear(below[number], cell.weight_ih, cell.bias_ih)
            gates = gates + F.linear(self.hidden[number], cell.weight_hh, cell.bias_hh)
            i, f, g, o = gates.chunk(4, dim=-1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            by_state = [g * i * (1 - i), before * f * (1 - f), i * (1 - g * g)]
            self.of_state.append(torch.stack(by_state, dim=2))  # gates by the cell's new state
            self.of_output.append(after * o * (1 - o))  # the output's gate by the output
            self.through.append(o * (1 - after * after))  # the new state by the output
            self.forget.append(f)
            self.grad_gates.append(torch.empty_like(gates))
        zeros = torch.zeros_like(cells[:, 0, 0, 0])
        self.from_hidden = [zeros] * len(speller.cells)
        self.from_state = [zeros] * len(speller.cells)

    def back(self, step: int, grad: Tensor) -> Tensor:
        """The gradient [B, width] of the last layer's output → [B, D] of the context before."""
        width = grad.shape[1]
        for number in reversed(range(len(self.speller.cells))):
            cell = self.speller.cells[number]
            grad = grad + self.from_hidden[number]
            state = torch.addcmul(self.from_state[number], grad, self.through[number][:, step])
            gates = self.grad_gates[number][:, step]
            torch.mul(
                state.unsqueeze(1),
                self.of_state[number][:, step],
                out=gates[:, : 3 * width].unflatten(1, (3, width)),
            )
            torch.mul(grad, self.of_output[number][:, step], out=gates[:, 3 * width :])
            self.from_state[number] = state * self.forget[number][:, step]
            self.from_hidden[number] = gates @ cell.weight_hh
            if number:
                grad = gates @ cell.weight_ih
                if self.factors is not None:
                    grad = grad * self.factors[:, step, number]
        return gates @ self.speller.cells[0].weight_ih[:, width:]

    def of_weights(self) -> list[Tensor]:
        """Gradients of the embedding, and of each cell's weights and biases."""
        embedding, cell = self.speller.embedding.weight, self.speller.cells[0]
        grad = self.grad_gates[0] @ cell.weight_ih[:, : embedding.shape[1]]
        if self.factors is not None:
            grad = grad * self.factors[:, :, 0]
        found = torch.zeros_like(embedding)
        grads = [found.index_add_(0, self.labels.flatten(), grad.flatten(0, 1))]
        for gates, x, hidden in zip(self.grad_gates, self.inputs, self.hidden, strict=True):
            gates = gates.flatten(0, 1)
            bias = gates.sum(0)
            grads += [gates.T @ x.flatten(0, 1), gates.T @ hidden.flatten(0, 1), bias, bias.clone()]
        return grads


class _AttentionBackward:
    """Of all steps' attention: ``grad_contexts`` [B, S, D] is filled in as the steps go back."""

    def __init__(self, speller, encoded, keys, queries, attention):
        self.speller, self.encoded, self.keys, self.queries = speller, encoded, keys, queries
        self.attention = attention[:, 1:]
        past = torch.stack([attention[:, :-1], attention[:, :-1].cumsum(1)], dim=2)
        self.past = past.flatten(0, 1)  # [B · S, 2, T']
        self.location = speller.location(self.past).unflatten(0, queries.shape[:2])
        self.asked = speller.query(queries)  # [B, S, A]
        self.grad_contexts = encoded.new_empty(*queries.shape[:2], encoded.shape[2])
        self.grad_asked = torch.empty_like(self.asked)
        self.grad_location = torch.empty_like(self.location)
        self.grad_keys = torch.zeros_like(keys)
        self.of_location_key = torch.zeros_like(speller.location_key.weight)
        self.of_energy = torch.zeros_like(speller.energy.weight)
        self.from_last = self.from_sum = torch.zeros_like(attention[:, 0])

    def back(self, step: int, grad_attention: Tensor) -> Tensor:
        """[B, width] of the query; the context's is in ``grad_contexts``, attention's own is [B, T']."""
        speller, attention = self.speller, self.attention[:, step]
        grad = torch.bmm(self.encoded, self.grad_contexts[:, step].unsqueeze(2)).squeeze(2)
        grad = (grad + grad_attention + self.from_last + self.from_sum) * attention
        energy = grad - attention * grad.sum(dim=1, keepdim=True)  # through the softmax
        location, weight = self.location[:, step], speller.location_key.weight
        compared = speller.compare(self.keys + self.asked[:, step].unsqueeze(1), location)
        self.of_energy += energy.flatten() @ compared.flatten(0, 1)
        grad = torch.ops.aten.tanh_backward(energy.unsqueeze(2) * speller.energy.weight, compared)
        self.grad_keys += grad
        torch.sum(grad, dim=1, out=self.grad_asked[:, step])
        # few rows rather than few columns: MKL takes a quarter of the time
        self.of_location_key += torch.bmm(location, grad).sum(0).T
        columns = weight.T.expand(len(grad), -1, -1)
        torch.bmm(columns, grad.transpose(1, 2), out=self.grad_location[:, step])
        before = F.conv_transpose1d(
            self.grad_location[:, step], speller.location.weight, padding=speller.location.padding
        )
        self.from_last, self.from_sum = before[:, 0], before[:, 1] + self.from_sum
        return self.grad_asked[:, step] @ speller.query.weight

    def of_memory(self) -> tuple[Tensor, Tensor]:
        """Gradients of the encoder's frames, as far as they are seen, and of the keys."""
        return self.attention.transpose(1, 2) @ self.grad_contexts, self.grad_keys

    def of_weights(self) -> tuple[Tensor, ...]:
        """Of the query, the convolution, and what compares its features."""
        query = self.grad_asked.flatten(0, 1).T @ self.queries.flatten(0, 1)
        location = self.speller.location
        convolution = torch.nn.grad.conv1d_weight(
            self.past,
            location.weight.shape,
            self.grad_location.flatten(0, 1),
            padding=location.padding,
        )
        return query, convolution, self.of_location_key, self.of_energy
