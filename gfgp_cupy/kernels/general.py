"""Launches of ``general.cu``: any kernel, stride and padding.

The functions are those of a :class:`.family.Family`.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from .family import BackwardTensors, ForwardTensors
from .lanes import BLOCK
from .launch import Launch, source
from .macros import Problem

__all__ = ["backward", "chunks", "forward", "serves"]

SOURCE = source(
    "element.cu", "max_ent.cu", "spread.cu", "window.cu", "streamed_softmax.cu", "general.cu"
)


def serves(problem: Problem) -> bool:
    """Always: what no other family can serve comes here."""
    return True


def forward(problem: Problem, tensors: ForwardTensors) -> list[Launch]:
    return [_launch("max_ent_pool2d_general_forward", problem, tensors.output, tensors)]


def chunks(problem: Problem, input: Tensor, grad_output: Tensor) -> int | None:
    return None


def backward(problem: Problem, tensors: BackwardTensors) -> list[Launch]:
    grad_output, input, lam, mean_grad, grad_input, grad_lam = tensors
    # Three numbers of each window, from which the gradients of its elements are gathered.
    statistics: tuple[Tensor | None, ...] = (None, None, None)
    if grad_input is not None:
        statistics = tuple(torch.empty_like(grad_output, dtype=lam.dtype) for _ in range(3))
    of_windows = (grad_output, input, lam, *statistics, grad_lam)
    launches = [_launch("max_ent_pool2d_window_statistics", problem, grad_output, of_windows)]
    if grad_input is not None:
        of_elements = (input, lam, *statistics, mean_grad, grad_input)
        launches.append(_launch("max_ent_pool2d_gather", problem, input, of_elements))
    return launches


def _launch(
    name: str, problem: Problem, owned: Tensor, tensors: tuple[Tensor | None, ...]
) -> Launch:
    """A launch in which each thread owns one element of ``owned``."""
    defines, sizes = _specialised(problem)
    threads = owned.numel()
    return Launch(
        name=name,
        source=SOURCE,
        defines=defines,
        grid=-(-threads // BLOCK),
        block=BLOCK,
        args=(*tensors, threads, *sizes),
    )


@functools.lru_cache(maxsize=4096)
def _specialised(problem: Problem) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The macros, and the sizes that the kernels are told."""
    kernel, stride, padding, _ = problem.geometry
    taps = 1 << (math.prod(kernel) - 1).bit_length()
    return problem.defines, (*problem.sizes, *kernel, *stride, *padding, taps)
