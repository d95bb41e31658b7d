"""Launches of ``volume_tiles.cu``: windows that tile volumes, each in the registers of one thread.

The functions are those of a :class:`.family.Family`; what these call planes are volumes here.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from .disjoint import ADAPTER, MAX_ENT, MAX_TAPS
from .family import BackwardTensors, ForwardTensors
from .formula import Parts
from .lanes import BLOCK, aligned_elements, largest_power_of_two
from .launch import Launch
from .macros import Problem, switches

__all__ = ["backward", "chunks", "forward", "serves"]

PARTS = Parts(("element.cu", "taps.cu"), MAX_ENT, ADAPTER, ("volume_tiles.cu",))

MOST_ELEMENTS = 32
"""Of 4-byte types, that a thread holds; of 8-byte types half as many."""


def serves(problem: Problem) -> bool:
    """Whether the windows tile the volumes exactly and fit into registers."""
    kernel, stride, padding, _ = problem.geometry
    fits = all(size % of_axis == 0 for size, of_axis in zip(problem.shape[2:], kernel, strict=True))
    return stride == kernel and not any(padding) and fits and 1 < math.prod(kernel) <= MAX_TAPS


def forward(problem: Problem, tensors: ForwardTensors) -> list[Launch]:
    aligned = aligned_elements(tensors.input, tensors.output, tensors.spread)
    return [_launch("volume_tiles_forward", problem, aligned, tensors)]


def chunks(problem: Problem, input: Tensor, grad_output: Tensor) -> int | None:
    return None


def backward(problem: Problem, tensors: BackwardTensors) -> list[Launch]:
    aligned = aligned_elements(tensors.input, tensors.grad_output)
    return [_launch("volume_tiles_backward", problem, aligned, tensors)]


def _launch(
    name: str, problem: Problem, aligned: int, tensors: ForwardTensors | BackwardTensors
) -> Launch:
    text, defines, groups = _specialised(problem, aligned, tensors.switches)
    return Launch(
        name=problem.kernel(name),
        source=text,
        defines=defines,
        grid=-(-groups // BLOCK),
        block=BLOCK,
        args=(*tensors, groups, *problem.sizes),
    )


@functools.lru_cache(maxsize=4096)
def _specialised(
    problem: Problem, aligned: int, on: tuple[str, ...]
) -> tuple[str, tuple[str, ...], int]:
    """The text, the macros, and how many groups of windows there are."""
    kernel, output_shape = problem.geometry.kernel_size, problem.output_shape
    most = MOST_ELEMENTS // math.prod(kernel) // (2 if problem.dtype is torch.float64 else 1)
    if problem.dtype.itemsize == 2:
        most *= 2
    row = problem.shape[1] if problem.channels_last else output_shape[4]
    vector = pack = largest_power_of_two(min(aligned, max(most, 1)), dividing=row)
    if not problem.channels_last:
        pack = largest_power_of_two(aligned, dividing=vector * kernel[2])
        # No more windows than one access a row needs: neighbouring threads' accesses then adjoin.
        vector = pack // math.gcd(pack, kernel[2])
    defines = (
        *problem.defines, *problem.window_defines, *switches(*on), f"VECTOR={vector}",
        f"PACK={pack}",
    )  # fmt: skip
    return PARTS.source(problem.function), defines, math.prod(output_shape) // vector
