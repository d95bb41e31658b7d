"""What the families of pooling kernels have in common: their functions, and what these are given.

A family is a module of this package: :mod:`.disjoint`, :mod:`.marching_rows`,
:mod:`.marching_channels`, :mod:`.overlapping`, :mod:`.whole_planes`, :mod:`.general`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from .launch import Launch
from .macros import Problem

__all__ = ["BackwardTensors", "Family", "ForwardTensors"]


class ForwardTensors(NamedTuple):
    """What a forward pass reads and writes. All but λ are dense and in one memory format.

    Attributes:
        input: [N, C, H, W], read.
        lam: λ of 4 dimensions, read.
        output: [N, C, oH, oW], written.
        spread: [N, C, oH, oW], the derivative of each window's output by θ as
            :mod:`gfgp_cupy.spread` keeps it, written; ``None``: not wanted.
    """

    input: Tensor
    lam: Tensor
    output: Tensor
    spread: Tensor | None

    @property
    def switches(self) -> tuple[str, ...]:
        """The parts of a kernel that are wanted, named as in :data:`.macros.SWITCHES`."""
        return () if self.spread is None else ("WRITE_SPREAD",)


class BackwardTensors(NamedTuple):
    """What a backward pass reads and writes. All but λ are dense; those of the input's or the
    output's size are in one memory format.

    Attributes:
        grad_output: [N, C, oH, oW], read.
        input: [N, C, H, W], read.
        lam: λ of 4 dimensions, read.
        mean_grad: [N, C, 1, 1] of λ's type, added to every element's gradient; ``None``: 0.
        grad_input: [N, C, H, W], written; ``None``: not wanted.
        grad_lam: λ's gradient in parts (see :meth:`Family.chunks`), of λ's type, written;
            ``None``: not wanted.
    """

    grad_output: Tensor
    input: Tensor
    lam: Tensor
    mean_grad: Tensor | None
    grad_input: Tensor | None
    grad_lam: Tensor | None

    @property
    def switches(self) -> tuple[str, ...]:
        """The parts of a kernel that are wanted, named as in :data:`.macros.SWITCHES`."""
        return (
            *(() if self.mean_grad is None else ("ADD_MEAN_GRAD",)),
            *(() if self.grad_input is None else ("WRITE_GRAD_INPUT",)),
            *(() if self.grad_lam is None else ("WRITE_GRAD_LAM",)),
        )


class Family(Protocol):
    """The functions of a family. Launches are to be run in their order."""

    def serves(self, problem: Problem) -> bool:
        """Whether these kernels can pool so."""
        ...

    def forward(self, problem: Problem, tensors: ForwardTensors) -> list[Launch]:
        """The launches that write what is wanted of a forward pass."""
        ...

    def chunks(self, problem: Problem, input: Tensor, grad_output: Tensor) -> int | None:
        """In how many parts :meth:`backward` writes a plane's part of λ's gradient, as
        [N, chunks, C]; ``None``: one for each window, as [N, C, oH, oW]."""
        ...

    def backward(self, problem: Problem, tensors: BackwardTensors) -> list[Launch]:
        """The launches that write what is wanted of a backward pass."""
        ...
