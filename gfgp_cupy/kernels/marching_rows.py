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
from .formula import Parts
from .lanes import aligned_elements, inverse, largest_power_of_two
from .launch import Launch
from .macros import INT_LIMIT, Problem, switches

__all__ = ["backward", "chunks", "forward", "serves"]

PARTS = Parts(
    ground=("element.cu", "divide.cu", "taps.cu"),
    max_ent=(
        "max_ent.cu", "spread.cu", "march.cu", "marching_strip.cu", "weighted_window.cu",
        "shared_weights.cu",
    ),
    adapter=(
        "spread.cu", "held_window.cu", "march.cu", "marching_strip.cu", "marching_function.cu"
    ),
    kernels=("marching_rows.cu",),
)  # fmt: skip

MAX_TAPS, MAX_TAPS_STRIDING = 25, 49
"""Elements of a window, which one thread holds in registers; the more where both strides are at
least 2, so that fewer windows hold an element."""

BLOCK = 128

ACCESS_BYTES = 16
"""What a thread owns of a row of input: an access, so that those of neighbours are side by side."""

MAX_COLUMNS = 4
"""Windows side by side that fit into a thread's registers; in the backward pass half so many where
one has more than ``FEW_TAPS`` elements. Of more than ``MAX_TAPS``: one."""

FEW_TAPS = 9

MIN_COLUMNS = 2
"""Planes that are no multiple of a group of windows wide have groups of half the width, down to so
many windows: the last group has less idle columns, and small planes have more threads."""

ENOUGH_THREADS, ENOUGH_THREADS_BACKWARD = 2**19, 2**18
"""Planes are cut into strips until there are so many threads, or a strip is too short. In the
backward pass fewer fit onto a GPU at a time, and each works on a row of the strip above, too."""

MIN_ROWS = 7
"""Rows of windows in a strip, so that few input rows are read twice."""

WARP = 32

MOST_IDLE = 1 / 16
"""Of the threads of a plane, where they add up λ's gradient; then fewer do it together."""


def serves(problem: Problem) -> bool:
    """Whether the windows lie side by side without gaps and fit into registers."""
    (kernel_h, kernel_w), (stride_h, stride_w), *_ = problem.geometry
    most = MAX_TAPS_STRIDING if stride_h > 1 and stride_w > 1 else MAX_TAPS
    return (
        not problem.channels_last
        and not problem.lam_varies_in_plane
        and problem.dtype is not torch.float64
        and 1 < kernel_h * kernel_w <= most
        and stride_h <= kernel_h
        and stride_w <= kernel_w
        and problem.geometry.overlapping
        and _march(problem, True).plane_threads * math.prod(problem.shape[:2]) < INT_LIMIT
    )


def forward(problem: Problem, tensors: ForwardTensors) -> list[Launch]:
    windows = aligned_elements(tensors.output, tensors.spread)
    return [_launch("marching_rows_forward", problem, windows, tensors)]


def chunks(problem: Problem, input: Tensor, grad_output: Tensor) -> int | None:
    march = _march(problem, True)
    return march.plane_threads // march.lanes


def backward(problem: Problem, tensors: BackwardTensors) -> list[Launch]:
    windows = aligned_elements(tensors.grad_output)
    parts = [tensors]
    if _large(problem) and tensors.grad_input is not None and tensors.grad_lam is not None:
        # One kernel for both would need more registers than there are.
        parts = [
            tensors._replace(grad_lam=None), tensors._replace(grad_input=None, mean_grad=None)
        ]  # fmt: skip
    return [_launch("marching_rows_backward", problem, windows, part) for part in parts]


def _large(problem: Problem) -> bool:
    return math.prod(problem.geometry.kernel_size) > MAX_TAPS


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
    samples, channels, _, width = problem.shape
    kernel, (_, stride_w), *_ = problem.geometry
    columns = max(1, ACCESS_BYTES // problem.dtype.itemsize // stride_w)
    few = not backward or math.prod(kernel) <= FEW_TAPS
    columns = min(columns, MAX_COLUMNS if few else MAX_COLUMNS // 2)
    if _large(problem) or (not few and not problem.for_max_ent):
        columns = 1
    while columns > (MIN_COLUMNS if few else 1) and width % (columns * stride_w):
        columns //= 2
    groups = max(-(-width // (columns * stride_w)), -(-problem.output_shape[3] // columns))
    rows = problem.output_shape[2]
    enough = ENOUGH_THREADS_BACKWARD if backward else ENOUGH_THREADS
    strips = -(-enough // max(1, samples * channels * groups))
    most = max(1, rows // MIN_ROWS)
    strips = min(strips, most)
    if not backward:
        return _in_strips_of(-(-rows // strips), rows, columns, groups)
    # About so many that the least is idle, of threads and of rows past the plane's end.
    marches = (
        _in_strips_of(-(-rows // strips), rows, columns, groups)
        for strips in range(-(-strips // 2), min(strips + strips // 2, most) + 1)
    )
    return min(
        marches, key=lambda march: (march.plane_threads * march.strip_rows, march.strip_rows)
    )


def _in_strips_of(strip_rows: int, rows: int, columns: int, groups: int) -> March:
    owners = groups * -(-rows // strip_rows)
    lanes = WARP
    while -owners % lanes > MOST_IDLE * owners:
        lanes //= 2
    return March(columns, groups, strip_rows, lanes, -(-owners // lanes) * lanes)


def _launch(
    name: str, problem: Problem, windows: int, tensors: ForwardTensors | BackwardTensors
) -> Launch:
    backward = isinstance(tensors, BackwardTensors)
    text, defines, sizes, grid = _specialised(
        problem, backward, aligned_elements(tensors.input), windows, tensors.switches
    )
    return Launch(
        name=problem.kernel(name), source=text, defines=defines, grid=grid, block=BLOCK,
        args=(*tensors, *sizes),
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _specialised(
    problem: Problem, backward: bool, aligned: int, windows: int, on: tuple[str, ...]
) -> tuple[str, tuple[str, ...], tuple[int, ...], int]:
    """The text, the macros, the sizes that the kernels are told, and the number of blocks.

    Accesses are as wide as addresses (``aligned`` elements of the input, ``windows`` of what is of
    the output's size) and rows allow.
    """
    march = _march(problem, backward)
    width, out_w = problem.shape[3], problem.output_shape[3]
    stride_w = problem.geometry.stride[1]
    own = march.columns * stride_w
    macros = (
        f"TILE={march.columns}",
        f"PACK={largest_power_of_two(min(aligned, own & -own), dividing=width)}",
        f"OUT_PACK={largest_power_of_two(min(windows, march.columns), dividing=out_w)}",
        f"FIT={int(width % own == 0 and width == out_w * stride_w)}",
    )
    planes = math.prod(problem.shape[:2])
    sizes = (
        *problem.sizes, planes, march.strip_rows, march.lanes,
        march.plane_threads, inverse(march.plane_threads), march.groups, inverse(march.groups),
        inverse(problem.shape[1]),
    )  # fmt: skip
    defines = (*problem.defines, *problem.window_defines, *macros, *switches(*on))
    grid = -(-planes * march.plane_threads // BLOCK)
    return PARTS.source(problem.function), defines, sizes, grid
