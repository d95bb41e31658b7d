"""Launches of ``marching_channels.cu``: channels_last, windows that overlap or that the edge cuts.

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
from .macros import Problem, switches

__all__ = ["backward", "chunks", "forward", "serves"]

PARTS = Parts(
    ground=("element.cu", "divide.cu", "taps.cu"),
    max_ent=(
        "max_ent.cu", "spread.cu", "march.cu", "marching_tile.cu", "weighted_window.cu",
        "shared_weights.cu",
    ),
    adapter=(
        "spread.cu", "held_window.cu", "march.cu", "marching_tile.cu", "marching_function.cu"
    ),
    kernels=("marching_channels.cu",),
)  # fmt: skip

BLOCK = 128

MAX_KERNEL = 5
"""Height and width of a window."""

FEW_TAPS = 9
"""Elements of a window of which a thread takes two channels of a half type at once."""

MAX_TILE = 4
"""Neighbouring windows of a thread; half as many where it takes two channels, or where a window has
more than ``FEW_TAPS`` elements."""

MAX_LANES = 32
"""Threads side by side along the channels: a warp."""

SECTOR = 32
"""Bytes of memory that they must take together, at least."""

ENOUGH_THREADS = 2**19
"""Planes are cut into strips until there are so many threads, or a strip is too short."""

MIN_ROWS = 16
"""Rows of windows in a strip, so that few input rows are read twice."""


def serves(problem: Problem) -> bool:
    """Whether threads side by side along the channels read whole sectors, of windows without gaps
    between that fit into registers."""
    (kernel_h, kernel_w), (stride_h, stride_w), *_ = problem.geometry
    return (
        problem.channels_last
        and problem.dtype is not torch.float64
        and not problem.lam_varies_in_plane
        and 1 < max(kernel_h, kernel_w) <= MAX_KERNEL
        and stride_h <= kernel_h
        and stride_w <= kernel_w
        and _lanes(problem.shape[1]) * problem.dtype.itemsize >= SECTOR
    )


def forward(problem: Problem, tensors: ForwardTensors) -> list[Launch]:
    aligned = aligned_elements(tensors.input, tensors.output, tensors.spread)
    deal = _deal(problem, aligned, False)
    return [_launch("marching_channels_forward", problem, deal, tensors)]


def chunks(problem: Problem, input: Tensor, grad_output: Tensor) -> int | None:
    aligned = aligned_elements(input, grad_output)
    return _deal(problem, aligned, True).chunks


def backward(problem: Problem, tensors: BackwardTensors) -> list[Launch]:
    aligned = aligned_elements(tensors.input, tensors.grad_output)
    deal = _deal(problem, aligned, True)
    return [_launch("marching_channels_backward", problem, deal, tensors)]


def _launch(
    name: str, problem: Problem, deal: Deal, tensors: ForwardTensors | BackwardTensors
) -> Launch:
    return Launch(
        name=problem.kernel(name),
        source=deal.source,
        defines=(*deal.defines, *switches(*tensors.switches)),
        grid=-(-deal.threads // BLOCK),
        block=BLOCK,
        args=(*tensors, *deal.numbers, *problem.sizes),
    )


@dataclass(frozen=True)
class Deal:
    """How planes are dealt to threads.

    Attributes:
        source: the kernels' text.
        defines: the macros, but for the switches.
        numbers: the kernels' arguments up to strip_rows.
        chunks: tiles of a plane.
        threads: that own a tile of VECTOR channels.
    """

    source: str
    defines: tuple[str, ...]
    numbers: tuple[int, ...]
    chunks: int
    threads: int


@functools.lru_cache(maxsize=4096)
def _deal(problem: Problem, aligned: int, backward: bool) -> Deal:
    samples, channels, height, width = problem.shape
    out_h, out_w = problem.output_shape[2:]
    kernel, (stride_h, stride_w), (padding_h, _), _ = problem.geometry
    pairs = problem.dtype.itemsize == 2 and channels % 2 == 0 and aligned >= 2
    few_taps = math.prod(kernel) <= FEW_TAPS
    vector = 2 if pairs and few_taps else 1
    vectors = channels // vector
    groups, rows = out_w, out_h
    if backward:  # All elements have a gradient, those of no window, too.
        groups = max(out_w, -(-width // stride_w))
        rows = (height + padding_h - 1) // stride_h + 1
    most = MAX_TILE if vector == 1 and few_taps else MAX_TILE // 2
    if backward and not few_taps and not problem.for_max_ent:
        most = 1  # more would not fit into registers
    tile = largest_power_of_two(min(most, groups))
    tiles, last_tile = -(-groups // tile), groups - tile
    across = max(samples, 1) * vectors * tiles
    strip_rows = -(-rows // min(-(-ENOUGH_THREADS // across), max(1, rows // MIN_ROWS)))
    strips = -(-rows // strip_rows)
    # More columns than a tile reads make no difference.
    last_columns = min(width - last_tile * stride_w, tile * stride_w + kernel[1])
    return Deal(
        source=PARTS.source(problem.function),
        defines=(
            *problem.defines, *problem.window_defines, f"CHANNELS={channels}",
            f"VECTOR={vector}", f"LANES={_lanes(vectors)}", f"TILE={tile}",
            f"LAST_COLUMNS={last_columns}", f"LAST_WINDOWS={min(out_w - last_tile, tile)}",
            f"OVERLAP={int(groups % tile > 0)}",
        ),
        numbers=(
            across * strips, tiles, inverse(tiles), last_tile, strips, inverse(strips), strip_rows,
        ),
        chunks=strips * tiles,
        threads=across * strips,
    )  # fmt: skip


def _lanes(vectors: int) -> int:
    """The most threads along the channels, up to MAX_LANES, that divide them."""
    return next(lanes for lanes in range(min(vectors, MAX_LANES), 0, -1) if vectors % lanes == 0)
