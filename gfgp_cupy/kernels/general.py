"""Launches of ``general.cu``: any kernel, stride and padding."""

from __future__ import annotations

import functools
import math

from torch import Tensor

from .lanes import BLOCK
from .launch import Launch, source
from .macros import Problem

__all__ = ["forward", "gather", "window_statistics"]

SOURCE = source("element.cu", "window.cu", "general.cu")


def forward(
    problem: Problem, input: Tensor, lam: Tensor, output: Tensor, spread: Tensor | None
) -> Launch:
    """Writes the pooled ``input``, and each window's standard deviation where ``spread`` is given.

    All tensors but λ are dense and in one memory format.
    """
    return _launch("max_ent_pool2d_general_forward", problem, output, (input, lam, output, spread))


def window_statistics(
    problem: Problem,
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    statistics: tuple[Tensor, Tensor, Tensor] | None,
    grad_lam: Tensor | None,
) -> Launch:
    """Writes the three numbers that :func:`gather` needs of each window (``statistics``) and the
    window's part of λ's gradient.

    All are output-sized, of λ's type, in the memory format of ``grad_output``. ``None`` for what
    is not needed.
    """
    written = (*(statistics or (None, None, None)), grad_lam)
    return _launch(
        "max_ent_pool2d_window_statistics", problem, grad_output,
        (grad_output, input, lam, *written),
    )  # fmt: skip


def gather(
    problem: Problem,
    input: Tensor,
    lam: Tensor,
    statistics: tuple[Tensor, Tensor, Tensor],
    mean_grad: Tensor | None,
    grad_input: Tensor,
) -> Launch:
    """Writes the gradient of ``input`` from what :func:`window_statistics` wrote.

    ``mean_grad`` [N, C], of λ's type, is added to every element's gradient.
    """
    return _launch(
        "max_ent_pool2d_gather", problem, input, (input, lam, *statistics, mean_grad, grad_input)
    )


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
