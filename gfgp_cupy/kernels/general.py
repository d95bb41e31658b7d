"""Launches of ``general.cu``: any kernel, stride and padding."""

from __future__ import annotations

import functools

from torch import Tensor

from .lanes import BLOCK
from .launch import Launch, source
from .macros import Problem, switches

__all__ = ["forward", "gather", "window_statistics"]

SOURCE = source("element.cu", "window.cu", "general.cu")


def forward(
    problem: Problem, input: Tensor, lam: Tensor, output: Tensor, spread: Tensor | None
) -> Launch:
    """Writes the pooled ``input``, and each window's standard deviation where ``spread`` is given.

    All tensors but λ are dense and in one memory format.
    """
    return Launch(
        name="max_ent_pool2d_general_forward",
        source=SOURCE,
        defines=_defines(problem, *(() if spread is None else ("WRITE_SPREAD",))),
        grid=_blocks(output.numel()),
        block=BLOCK,
        args=(input, lam, output, spread, output.numel(), *problem.sizes),
    )


def window_statistics(
    problem: Problem,
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    statistics: tuple[Tensor, Tensor] | None,
    grad_lam: Tensor | None,
) -> Launch:
    """Writes each window's mean and log-total (``statistics``) and its part of λ's gradient.

    All are output-sized, of λ's type, in the memory format of ``grad_output``. ``None`` for what
    is not needed.
    """
    return Launch(
        name="max_ent_pool2d_window_statistics",
        source=SOURCE,
        defines=_defines(
            problem,
            *(() if statistics is None else ("WRITE_STATISTICS",)),
            *(() if grad_lam is None else ("WRITE_GRAD_LAM",)),
        ),
        grid=_blocks(grad_output.numel()),
        block=BLOCK,
        args=(
            grad_output, input, lam, *(statistics or (None, None)), grad_lam,
            grad_output.numel(), *problem.sizes,
        ),
    )


def gather(
    problem: Problem,
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    statistics: tuple[Tensor, Tensor],
    mean_grad: Tensor | None,
    grad_input: Tensor,
) -> Launch:
    """Writes the gradient of ``input`` from what :func:`window_statistics` wrote.

    ``mean_grad`` [N, C], of λ's type, is added to every element's gradient.
    """
    return Launch(
        name="max_ent_pool2d_gather",
        source=SOURCE,
        defines=_defines(problem, *(() if mean_grad is None else ("ADD_MEAN_GRAD",))),
        grid=_blocks(input.numel()),
        block=BLOCK,
        args=(
            grad_output, input, lam, *statistics, mean_grad, grad_input,
            input.numel(), *problem.sizes,
        ),
    )


@functools.lru_cache(maxsize=4096)
def _defines(problem: Problem, *on: str) -> tuple[str, ...]:
    return *problem.defines, *switches(*on)


def _blocks(threads: int) -> int:
    return -(-threads // BLOCK)
