"""Launches of ``general.cu`` and ``volume.cu``: planes and volumes pooled by any kernel, stride and
padding.

The functions are those of a :class:`.family.Family`; what these call planes may be volumes here.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from torch import Tensor

from .family import BackwardTensors, ForwardTensors
from .formula import Parts, numbers_of
from .lanes import BLOCK
from .launch import Launch
from .macros import Problem

__all__ = ["backward", "chunks", "forward", "serves"]


class Program(NamedTuple):
    """The files of a program, and the names of its kernels."""

    parts: Parts
    forward: str
    statistics: str
    gather: str


OF_PLANES = Program(
    Parts(
        ground=("element.cu", "window.cu", "compensated_sum.cu"),
        max_ent=("max_ent.cu", "spread.cu", "streamed_softmax.cu"),
        adapter=("spread.cu", "streamed_function.cu"),
        kernels=("general.cu",),
    ),
    "general_forward", "window_statistics", "gather",
)  # fmt: skip
OF_VOLUMES = Program(
    Parts(
        ground=("element.cu", "volume_window.cu", "compensated_sum.cu"),
        max_ent=(
            "window_function.cu", "max_ent.cu", "max_ent_function.cu", "spread.cu",
            "streamed_function.cu",
        ),
        adapter=("spread.cu", "streamed_function.cu"),
        kernels=("volume.cu",),
    ),
    "volume_forward", "volume_statistics", "volume_gather",
)  # fmt: skip


def serves(problem: Problem) -> bool:
    """Always: what no other family can serve comes here."""
    return True


def forward(problem: Problem, tensors: ForwardTensors) -> list[Launch]:
    return [_launch(_program(problem).forward, problem, tensors.output.numel(), tensors)]


def chunks(problem: Problem, input: Tensor, grad_output: Tensor) -> int | None:
    return None


def backward(problem: Problem, tensors: BackwardTensors) -> list[Launch]:
    grad_output, input, lam, mean_grad, grad_input, grad_lam = tensors
    program, outputs, statistics = _program(problem), grad_output.numel(), None
    if grad_input is not None:
        # The numbers of each window from which the gradients of its elements are gathered: first
        # all windows' first ones.
        statistics = lam.new_empty(numbers_of(problem.function), outputs)
    of_windows = (grad_output, input, lam, statistics, grad_lam)
    launches = [_launch(program.statistics, problem, outputs, of_windows)]
    if grad_input is not None:
        inputs = input.numel()
        of_elements = (input, lam, statistics, mean_grad, grad_input, inputs)
        launches.append(_launch(program.gather, problem, inputs, of_elements))
    return launches


def _program(problem: Problem) -> Program:
    return OF_PLANES if len(problem.shape) == 4 else OF_VOLUMES


def _launch(
    name: str, problem: Problem, threads: int, args: tuple[Tensor | int | None, ...]
) -> Launch:
    """A launch of so many threads, and at most a block more."""
    text, defines, sizes = _specialised(problem)
    return Launch(
        name=problem.kernel(name),
        source=text,
        defines=defines,
        grid=-(-threads // BLOCK),
        block=BLOCK,
        args=(*args, *sizes),
    )


@functools.lru_cache(maxsize=4096)
def _specialised(problem: Problem) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
    """The text, the macros, and the sizes that the kernels are told."""
    kernel, stride, padding, _ = problem.geometry
    taps = 1 << (math.prod(kernel) - 1).bit_length()
    windows = math.prod(problem.output_shape)
    sizes = (windows, *problem.sizes, *kernel, *stride, *padding, taps)
    return _program(problem).parts.source(problem.function), problem.defines, sizes
