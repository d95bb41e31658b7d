"""Launches of ``marching_rows.cu``: windows of contiguous planes that overlap, several side by side
in the registers of one thread.

The functions are those of a :class:`.family.Family`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .family import BackwardTensors, ForwardTensors
from .lanes import aligned_elements, largest_power_of_two
from .launch import Launch, source
from .macros import INT_LIMIT, Problem, switches

__all__ = ["backward", "chunks", "forward", "serves"]

SOURCE = source(
    "element.cu", "taps.cu", "weighted_window.cu", "shared_weights.cu", "marching_strip.cu",
    "marching_rows.cu",
)  # fmt: skip

MAX_TAPS = 25
"""Elements of a window, which one thread holds in registers."""

BLOCK = 128

ACCESS_BYTES = 16
"""What a thread owns of a row of input: an access, so that those of neighbours are side by side."""

MAX_COLUMNS = 4
"""Windows side by side that fit into a thread's registers; in the backward pass half so many where
one has more than ``FEW_TAPS`` elements."""

FEW_TAPS = 9

MIN_COLUMNS = 2
"""Planes that are no multiple of a group of windows wide have groups of half the width, down to so
many windows: the last group has less idle columns."""

ENOUGH_THREADS = 2**19
"""Planes are cut into strips until there are so many threads, or a strip is too short."""

MIN_ROWS = 7
"""Rows of windows in a strip, so that few input rows are read twice."""

WARP = 32

MOST_IDLE = 1 / 16
"""Of the threads of a plane, where they add up λ's gradient; then fewer do it together."""


def serves(problem: Problem) -> bool:
    """Whether the windows lie side by side without gaps and fit into registers."""
    (kernel_h, kernel_w), (stride_h, stride_w), *_ = problem.geometry
    return (
        not problem.channels_last
        and not problem.lam_varies_in_plane
        and problem.dtype is not torch.float64
        and 1 < kernel_h * kernel_w <= MAX_TAPS
        and stride_h <= kernel_h
        and stride_w <= kernel_w
        and problem.geometry.overlapping
        and _march(problem, True).plane_threads * math.prod(problem.shape[:2]) < INT_LIMIT
    )


def forward(problem: Problem, tensors: ForwardTensors) -> list[Launch]:
    windows = aligned_elements(tensors.output, tensors.spread)
    return [_launch("max_ent_pool2d_marching_rows_forward", problem, windows, tensors)]


def chunks(problem: Problem, input: Tensor, grad_output: Tensor) -> int | None:
    march = _march(problem, True)
    return march.plane_threads // march.lanes


def backward(problem: Problem, tensors: BackwardTensors) -> list[Launch]:
    windows = aligned_elements(tensors.grad_output)
    return [_launch("max_ent_pool2d_marching_rows_backward", problem, windows, tensors)]


@dataclass(frozen=True)
class March:
    """How planes are cut into strips and groups of columns, a thread each.

    Attributes:
        columns: windows side by side that a thread owns.
        groups: of columns, a row of the plane.
        strip_rows: rows of windows that a thread marches down.
        lanes: threads that add up their parts of λ's gradient.
        plane_threads: threads of a plane, a multiple of ``lanes``; the last ones own nothing.
    """

    columns: int
    groups: int
    strip_rows: int
    lanes: int
    plane_threads: int


@functools.lru_cache(maxsize=4096)
def _march(problem: Problem, backward: bool) -> March:
    samples, channels, height, width = problem.shape
    kernel, (stride_h, stride_w), (padding_h, _), _ = problem.geometry
    columns = max(1, ACCESS_BYTES // problem.dtype.itemsize // stride_w)
    few = not backward or math.prod(kernel) <= FEW_TAPS
    columns = min(columns, MAX_COLUMNS if few else MAX_COLUMNS // 2)
    while columns > (MIN_COLUMNS if few else 1) and width % (columns * stride_w):
        columns //= 2
    groups = max(-(-width // (columns * stride_w)), -(-problem.output_shape[3] // columns))
    # At least as many as there are windows, since no window begins past the plane's end.
    rows = (height + padding_h - 1) // stride_h + 1
    strips = -(-ENOUGH_THREADS // max(1, samples * channels * groups))
    strip_rows = -(-rows // min(strips, max(1, rows // MIN_ROWS)))
    owners = groups * -(-rows // strip_rows)
    lanes = WARP
    while -owners % lanes > MOST_IDLE * owners:
        lanes //= 2
    return March(columns, groups, strip_rows, lanes, -(-owners // lanes) * lanes)


def _launch(
    name: str, problem: Problem, windows: int, tensors: ForwardTensors | BackwardTensors
) -> Launch:
    backward = isinstance(tensors, BackwardTensors)
    defines, sizes, grid = _specialised(
        problem, backward, aligned_elements(tensors.input), windows, tensors.switches
    )
    return Launch(
        name=name, source=SOURCE, defines=defines, grid=grid, block=BLOCK, args=(*tensors, *sizes)
    )


@functools.lru_cache(maxsize=4096)
def _specialised(
    problem: Problem, backward: bool, aligned: int, windows: int, on: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[int, ...], int]:
    """The macros, the sizes that the kernels are told, and the number of blocks.

    Accesses are as wide as addresses (``aligned`` elements of the input, ``windows`` of what is of
    the output's size) and rows allow.
    """
    march = _march(problem, backward)
    width, out_w = problem.shape[3], problem.output_shape[3]
    own = march.columns * problem.geometry.stride[1]
    whole = width % own == 0 and out_w == width // own * march.columns
    macros = (
        f"COLUMNS={march.columns}",
        f"PACK={largest_power_of_two(min(aligned, own & -own), dividing=width)}",
        f"OUT_PACK={largest_power_of_two(min(windows, march.columns), dividing=out_w)}",
        f"FIT={int(whole)}",
    )
    planes = math.prod(problem.shape[:2])
    sizes = (
        *problem.sizes, planes, march.strip_rows, march.lanes,
        march.plane_threads, *_magic(march.plane_threads), march.groups, *_magic(march.groups),
        *_magic(problem.shape[1]),
    )  # fmt: skip
    defines = (*problem.defines, *problem.window_defines, *macros, *switches(*on))
    return defines, sizes, -(-planes * march.plane_threads // BLOCK)


def _magic(divisor: int) -> tuple[int, int]:
    """What the kernels divide by: n / divisor = (n + (n magic >> 32)) >> shift for n < 2³¹."""
    shift = (divisor - 1).bit_length()
    return (2**32 * (2**shift - divisor)) // divisor + 1, shift
