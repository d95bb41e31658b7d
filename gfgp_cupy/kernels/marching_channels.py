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
from .lanes import aligned_elements
from .launch import Launch, source
from .macros import INT_LIMIT, Problem, switches

__all__ = ["backward", "chunks", "forward", "serves"]

SOURCE = source("element.cu", "window.cu", "marching_channels.cu")

BLOCK = 128

MAX_KERNEL = 5
"""Height and width of a window."""

MAX_TAPS_OF_PAIRS = 9
"""Elements of a window of which a thread takes two channels of a half type at once."""

TILE = 2
"""Neighbouring windows of a thread."""

MAX_LANES = 32
"""Threads side by side along the channels: a warp."""

SECTOR = 32
"""Bytes of memory that they must take together, at least."""

ENOUGH_THREADS = 2**19
"""Planes are cut into strips until there are so many threads, or a strip is too short."""

MIN_ROWS = 16
"""Rows of windows in a strip, so that few input rows are read twice."""

MAX_ROWS = 28
"""With the rows above that reach its elements, a thread has a bit for each."""


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
        and _deal(problem, 1, True).threads < INT_LIMIT
    )


def forward(problem: Problem, tensors: ForwardTensors) -> list[Launch]:
    aligned = aligned_elements(tensors.input, tensors.output, tensors.spread)
    deal = _deal(problem, aligned, False)
    return [_launch("max_ent_pool2d_marching_channels_forward", deal, tensors, problem.sizes)]


def chunks(problem: Problem, input: Tensor, grad_output: Tensor) -> int | None:
    aligned = aligned_elements(input, grad_output)
    return _deal(problem, aligned, True).chunks


def backward(problem: Problem, tensors: BackwardTensors) -> list[Launch]:
    aligned = aligned_elements(tensors.input, tensors.grad_output)
    deal = _deal(problem, aligned, True)
    return [_launch("max_ent_pool2d_marching_channels_backward", deal, tensors, problem.sizes)]


def _launch(
    name: str, deal: Deal, tensors: ForwardTensors | BackwardTensors, sizes: tuple[int, ...]
) -> Launch:
    return Launch(
        name=name,
        source=SOURCE,
        defines=(*deal.defines, *switches(*tensors.switches)),
        grid=-(-deal.threads // BLOCK),
        block=BLOCK,
        args=(*tensors, deal.threads, *deal.numbers, *sizes),
    )


@dataclass(frozen=True)
class Deal:
    """How planes are dealt to threads.

    Attributes:
        defines: the macros, but for the switches.
        numbers: the kernels' arguments lanes, tiles, strips and strip_rows.
        chunks: tiles of a plane.
        threads: that own a tile of VECTOR channels.
    """

    defines: tuple[str, ...]
    numbers: tuple[int, int, int, int]
    chunks: int
    threads: int


@functools.lru_cache(maxsize=4096)
def _deal(problem: Problem, aligned: int, backward: bool) -> Deal:
    samples, channels, height, width = problem.shape
    out_h, out_w = problem.output_shape[2:]
    geometry = problem.geometry
    if backward:  # All elements have a gradient, those of no window, too.
        out_h = (height + geometry.padding[0] - 1) // geometry.stride[0] + 1
        out_w = (width + geometry.padding[1] - 1) // geometry.stride[1] + 1
    pairs = problem.dtype.itemsize == 2 and channels % 2 == 0 and aligned >= 2
    vector = 2 if pairs and math.prod(geometry.kernel_size) <= MAX_TAPS_OF_PAIRS else 1
    lanes = _lanes(channels // vector)
    tiles = -(-out_w // TILE)
    across = max(samples, 1) * (channels // vector) * tiles
    strips = max(-(-out_h // MAX_ROWS), min(-(-ENOUGH_THREADS // across), out_h // MIN_ROWS))
    strip_rows = -(-out_h // strips)
    strips = -(-out_h // strip_rows)
    return Deal(
        defines=(
            *problem.defines, *problem.window_defines, f"VECTOR={vector}", f"TILE={TILE}"
        ),
        numbers=(lanes, tiles, strips, strip_rows),
        chunks=strips * tiles,
        threads=across * strips,
    )  # fmt: skip


def _lanes(vectors: int) -> int:
    """The most threads along the channels, up to MAX_LANES, that divide them."""
    return next(lanes for lanes in range(min(vectors, MAX_LANES), 0, -1) if vectors % lanes == 0)
