"""Rounds in which all contenders take their turn, each on an input that is not in the cache."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.contenders import Contender
from benchmarks.shapes import Shape
from benchmarks.timing import Cache, Timer

__all__ = ["SPACING", "Inputs", "Turns", "backward", "time_round"]

SPACING = 64
"""Tensors start at multiples of that many elements: aligned as PyTorch's allocator does it."""


class Turns:
    """Tensors of one size that take turns, all of them parts of one long ``memory``.

    Args:
        memory: one-dimensional.
        sizes: N, C, H, W.
        layout: ``"contiguous"`` or ``"channels_last"``.
        first: the turn to begin with, as a fraction of all turns.
    """

    def __init__(
        self, memory: Tensor, sizes: tuple[int, int, int, int], layout: str, first: float = 0
    ) -> None:
        self._memory, self._sizes, self._layout = memory, sizes, layout
        samples, channels, height, width = sizes
        self._elements = samples * channels * height * width
        self._step = -(-self._elements // SPACING) * SPACING
        self._count = memory.numel() // self._step
        self._turn = int(first * self._count)

    def next(self) -> Tensor:
        """The tensor whose turn it is."""
        start = self._turn % self._count * self._step
        self._turn += 1
        part = self._memory[start : start + self._elements]
        samples, channels, height, width = self._sizes
        if self._layout == "channels_last":
            return part.view(samples, height, width, channels).permute(0, 3, 1, 2)
        return part.view(self._sizes)


@dataclass(frozen=True)
class Inputs:
    """Where the contenders for one shape take their inputs and output gradients from."""

    inputs: Turns
    grad_outputs: Turns

    @classmethod
    def of(cls, memory: Tensor, shape: Shape, batch_size: int, layout: str) -> Inputs:
        sizes = (batch_size, shape.channels, shape.height, shape.width)
        output_sizes = (batch_size, shape.channels, *shape.output_size)
        return cls(Turns(memory, sizes, layout), Turns(memory, output_sizes, layout, first=0.5))

    def input(self) -> Tensor:
        """The next input, which requires its gradient."""
        return self.inputs.next().requires_grad_()


def time_round(
    contenders: Sequence[Contender],
    inputs: Inputs,
    timer: Timer,
    cache: Cache,
    shuffle: random.Random,
) -> dict[str, tuple[float, float | None]]:
    """Times every contender once: seconds of its forward and of its backward pass, by name.

    All the forward passes come first, then all the backward passes, each in an order of its own:
    as in a network, much other memory is touched between a layer's two passes.
    """
    cache.evict()
    forwards, graphs = {}, {}
    for contender in shuffle.sample(contenders, len(contenders)):
        input = inputs.input()
        cache.head_start()
        output, forwards[contender.name] = timer(functools.partial(contender.forward, input))
        if contender.backward_bytes is not None:
            graphs[contender.name] = (output, input)
    cache.evict()
    backwards = {}
    differentiable = [contender for contender in contenders if contender.name in graphs]
    for contender in shuffle.sample(differentiable, len(differentiable)):
        output, input = graphs.pop(contender.name)
        grad_output = inputs.grad_outputs.next()
        cache.head_start()
        _, backwards[contender.name] = timer(
            functools.partial(backward, contender, output, input, grad_output)
        )
    return {
        name: (seconds(), backwards[name]() if name in backwards else None)
        for name, seconds in forwards.items()
    }


def backward(contender: Contender, output: Tensor, input: Tensor, grad_output: Tensor) -> tuple:
    """The gradients of the input and of the contender's parameters."""
    return torch.autograd.grad(output, (input, *contender.parameters), grad_output)
