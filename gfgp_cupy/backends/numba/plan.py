"""How a call is divided: which compiled functions serve it, its sizes, their scratch memory."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...geometry import PoolGeometry
from ...memory_format import layout_of

__all__ = ["VECTOR_BYTES", "Pieces", "Plan", "Rows", "Sizes", "plan"]

VECTOR_BYTES = 64

SCRATCH_BYTES = 16 * 1024
"""Half of a small first-level cache, the tensors pass through the other half. A vector of windows
may take more, which stays in the second-level cache."""

MOST_SCRATCH_BYTES = 256 * 1024
"""A part of a second-level cache. Windows of which a vector takes more, those of about a thousand
elements, are pooled as soon where they lie, if their rows fill vectors; and sooner the larger they
are."""

LONG_PLANE = 101
"""Elements from which on this holds for contiguous windows that are whole planes: there is but one
in a row, and scratch would be empty but for it. Smaller ones are not worth compiling more for."""

STRIP_BYTES = 1024 * 1024
"""Half of a second-level cache."""

LEAST_PLANES, LONGEST_SUM = 8, 64
"""At least so many planes, in which a lane has at most so many windows, are divided among threads
as a whole: of more windows, one sum would lose digits of λ's gradient."""


class Sizes(NamedTuple):
    """The sizes of a call, and the strides of λ, in elements. A plane is a volume of depth 1.

    Attributes:
        input, lam: elements in all of the input, and in all of λ.
        pixel: elements from a pixel to the next: 1 in contiguous planes, C in channels_last.
        segment: windows in a segment, a run that lies side by side in the output: a row of a
            contiguous plane, or the channels of one pixel in channels_last.
        segments: segments in an output row.
        lam_lane: step in λ from a window of a segment to the next.
        lam_plane, lam_depth, lam_row, lam_column: steps in λ from one plane (or volume), and in it
            from one output plane of a volume, output row or output column, to the next; 0 along an
            axis that λ does not have. (A plane is a sample in channels_last, whose λ has all the
            channels of a pixel side by side.)
    """

    input: int
    lam: int
    pixel: int
    segment: int
    segments: int
    depth: int
    height: int
    width: int
    out_depth: int
    out_height: int
    kernel_d: int
    kernel_h: int
    kernel_w: int
    stride_d: int
    stride_h: int
    stride_w: int
    padding_d: int
    padding_h: int
    padding_w: int
    lam_lane: int
    lam_plane: int
    lam_depth: int
    lam_row: int
    lam_column: int


class Rows(NamedTuple):
    """Scratch memory: rows of ``length`` elements, the windows' λ in the first of them.

    Attributes:
        windows: how many windows to work on at a time. A row is longer, by a vector.
        result, further: where the rows for the windows' results and further results begin.
        elements, weights, bias: where the rows for the elements of the windows, their weights and
            the biases on their exponents begin: one row for each of the kernel's ``positions``.
        bias_step: from a row of biases to the next; 0 where all are 0 and share one row.
        block: how many positions to sum up before adding them to the sums of others.
        halvings: the number of times to halve the weights so that their sum is at most 1.
        size: elements of scratch memory.
    """

    windows: int
    length: int
    positions: int
    result: int
    further: int
    elements: int
    weights: int
    bias: int
    bias_step: int
    block: int
    halvings: int
    size: int


class Pieces(NamedTuple):
    """How :mod:`.long_windows` sums up: in three levels, so that many elements lose no digits.

    Attributes:
        piece: how many pixels of a run at first.
        runs_together: then the pieces of so many runs.
        halvings: the number of times to halve numbers of at most 1 so that their sum is, too.
    """

    piece: int
    runs_together: int
    halvings: int


class Strip(NamedTuple):
    """Scratch memory of :mod:`.overlapping`: rows of ``length`` elements, of which the first
    ``margin`` lie left of the first window's.

    Attributes:
        inside: the number of the first of two rows, which say what columns lie in the input: 1 or
            0. Twelve rows come before them: of each of three input rows the elements in even and in
            odd columns, and the weights likewise.
        sent: the number of the first of nine rows, of what windows send to the elements on their
            left, in their middle and on their right, for each of three input rows.
        lam: where λ begins, of the plane or of a pixel's channels.
        shares: the number of a row of one over how many columns of each window lie in the input.
        further: that of the first of twelve rows for two further numbers of each element, laid out
            as those before ``inside``.
        size: elements of scratch memory.
    """

    margin: int
    length: int
    inside: int
    sent: int
    lam: int
    shares: int
    further: int
    size: int


@dataclass(frozen=True)
class Plan:
    """Attributes:
    layout: the memory format of input and output.
    input_is_dense, lam_fits: whether the input, and λ, can be used where they lie, if their types
        do.
    output_shape: [N, C, oH, oW] or [N, C, oD, oH, oW].
    module: what pools it: ``"tiles"``, ``"overlapping"``, ``"windows"`` or ``"long_windows"``.
    numbers: what the functions of that module are told: the sizes, and the fields of
        :class:`Strip` or :class:`Pieces`, or those of :class:`Rows` and the address of ``columns``.
    scratch: elements of scratch memory that each thread needs.
    output_rows: rows of the output, counted over all planes.
    plane_rows: those of one plane.
    rows_together: rows of the output whose gradients are one thread's.
    whole_planes: whether planes are so many and so small that threads need not share one.
    row_elements: elements that the windows of one of them have.
    columns: of ``"windows"``, for each column j of the kernel, the windows of a contiguous row that
        have it inside the input: from [j, 0] to before [j, 1].
    """

    layout: torch.memory_format
    input_is_dense: bool
    lam_fits: bool
    output_shape: tuple[int, ...]
    module: str
    numbers: tuple[int, ...]
    scratch: int
    columns: np.ndarray
    output_rows: int
    plane_rows: int
    rows_together: int
    whole_planes: bool
    row_elements: int


def plan(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Plan:
    """For [N, C, H, W] ``input`` and 4-D ``lam`` of the type to compute in, with any strides; or
    [N, C, D, H, W] and 5-D."""
    return _plan(input.shape, input.stride(), lam.shape, lam.stride(), geometry, lam.element_size())


@functools.lru_cache(maxsize=1024)
def _plan(
    shape: torch.Size, strides: tuple[int, ...], lam_shape: torch.Size,
    lam_strides: tuple[int, ...], geometry: PoolGeometry, element_size: int,
) -> Plan:  # fmt: skip
    # Tensors without memory: what PyTorch says of the strides.
    input = torch.empty_strided(shape, strides, device="meta")
    lam = torch.empty_strided(lam_shape, lam_strides, device="meta")
    layout = layout_of(input)
    samples, channels, *size = shape
    out_size = geometry.output_size(*size)
    # With one channel both layouts are the same order, and the planes' rows are longer.
    channels_last = layout is not torch.contiguous_format and channels > 1
    pixel = channels if channels_last else 1
    width, out_width = size[-1], out_size[-1]
    lam_depth, lam_height, lam_width = _of_a_volume(lam_shape[2:], 1)
    sizes = Sizes(
        shape.numel(),
        samples * channels * lam_depth * lam_height * lam_width,
        pixel,
        pixel if channels_last else out_width,
        out_width if channels_last else 1,
        *_of_a_volume(size, 1),
        *_of_a_volume(out_size, 1)[:2],
        *_of_a_volume(geometry.kernel_size, 1),
        *_of_a_volume(geometry.stride, 1),
        *_of_a_volume(geometry.padding, 0),
        lam_lane=1 if channels_last or lam_width > 1 else 0,
        lam_plane=lam_depth * lam_height * lam_width * pixel,
        lam_depth=lam_height * lam_width * pixel if lam_depth > 1 else 0,
        lam_row=lam_width * pixel if lam_height > 1 else 0,
        lam_column=pixel if lam_width > 1 else 0,
    )
    positions = math.prod(geometry.kernel_size)
    columns = np.empty((0, 2), np.intp)
    tiled = geometry.kernel_size == geometry.stride == (2, 2) and (
        [2 * length for length in out_size] == size
    )
    strip = _strip(geometry, sizes, max(out_width + 1, (width + 1) // 2), element_size)
    lanes = VECTOR_BYTES // element_size
    cut = any(geometry.padding) or any(geometry.overhang(*size))
    rows = _rows(positions, element_size, cut)
    if tiled:
        module, numbers, scratch = "tiles", (), 0
    elif strip is not None:
        module, numbers, scratch = "overlapping", strip, strip.size
    elif (
        rows.size * element_size > MOST_SCRATCH_BYTES
        # In a narrow window's rows a vector of its neighbours is mostly empty.
        and (channels_last or out_width == 1 or 2 * geometry.kernel_size[-1] >= 3 * lanes)
    ) or (positions >= LONG_PLANE and geometry.is_whole_plane(*size) and not channels_last):
        pieces = _pieces(geometry.kernel_size, max(1, lanes // pixel))
        module, numbers, scratch = "long_windows", pieces, 2 * lanes
    else:
        columns = _columns_inside(geometry, width, out_width)
        module, numbers, scratch = "windows", (*rows, columns.ctypes.data), rows.size
    vectors = out_width if channels_last else -(-out_width * element_size // VECTOR_BYTES)
    return Plan(
        layout,
        input.is_contiguous(memory_format=layout),
        lam.shape[:2] == shape[:2] and lam.is_contiguous(memory_format=layout),
        (samples, channels, *out_size),
        module,
        (*sizes, *numbers),
        scratch,
        columns,
        output_rows=math.prod(out_size[:-1]) * samples * (1 if channels_last else channels),
        plane_rows=out_size[-2],
        rows_together=_rows_together(module, geometry, out_size),
        whole_planes=(
            module in ("tiles", "overlapping")
            and samples * channels >= LEAST_PLANES * pixel
            and out_size[-2] * vectors <= LONGEST_SUM
        ),
        row_elements=out_width * positions * pixel,
    )


def _rows_together(module: str, geometry: PoolGeometry, out_size: Sequence[int]) -> int:
    """Of the output: of windows with a depth, those of whole planes. Long windows are not computed
    again for the rows of another part, so it has all that share elements."""
    is_long = module == "long_windows"
    kernel_d, kernel_h, _ = _of_a_volume(geometry.kernel_size, 1)
    stride_d, stride_h, _ = _of_a_volume(geometry.stride, 1)
    if is_long and kernel_d > stride_d:
        return math.prod(out_size[:-1])
    return out_size[-2] if kernel_d > 1 or (is_long and kernel_h > stride_h) else 1


def _pieces(kernel_size: Sequence[int], ahead: int) -> Pieces:
    """``ahead``: pixels that a vector holds."""
    positions, runs = math.prod(kernel_size), math.prod(kernel_size[:-1])
    halvings = (positions - 1).bit_length()
    return Pieces(_root(-(-positions // ahead)) * ahead, _root(runs), halvings)


def _root(count: int) -> int:
    """The square root, rounded up."""
    return math.isqrt(count - 1) + 1


def _of_a_volume(numbers: Sequence[int], of_depth: int) -> tuple[int, int, int]:
    """One for each axis of a volume; of planes, ``of_depth`` for the first."""
    height, width = numbers[-2:]
    return (of_depth if len(numbers) == 2 else numbers[0]), height, width


def _rows(positions: int, element_size: int, cut: bool) -> Rows:
    """``cut``: whether some window has elements outside the input."""
    vector = VECTOR_BYTES // element_size
    biases = positions if cut else 1
    row_bytes = (3 + 2 * positions + biases) * element_size
    windows = max(1, SCRATCH_BYTES // row_bytes // vector) * vector
    length = windows + vector  # the last vector may begin at any window
    weights = (3 + positions) * length
    bias = weights + positions * length
    return Rows(
        windows,
        length,
        positions,
        result=length,
        further=2 * length,
        elements=3 * length,
        weights=weights,
        bias=bias,
        bias_step=length if cut else 0,
        block=_root(positions),
        halvings=(positions - 1).bit_length(),
        size=bias + biases * length,
    )


def _strip(geometry: PoolGeometry, sizes: Sizes, pairs: int, element_size: int) -> Strip | None:
    """For ``pairs`` of columns; none for other windows than 3×3 at stride 2, nor for a λ that
    varies in a plane, nor where the rows would not stay in a second-level cache."""
    if geometry.kernel_size != (3, 3) or geometry.stride != (2, 2):
        return None
    if sizes.lam_row > 0 or sizes.lam_column > 0:
        return None
    vector = VECTOR_BYTES // element_size
    margin = -(-sizes.pixel // vector) * vector
    # Vectors may begin at any window and reach a pixel further.
    length = margin + (-(-(pairs + 1) * sizes.pixel // vector) + 2) * vector
    if 24 * length * element_size > STRIP_BYTES:
        return None
    return Strip(
        margin,
        length,
        inside=12,
        sent=15,
        lam=14 * length + margin,
        shares=24,
        further=25,
        size=37 * length,
    )


def _columns_inside(geometry: PoolGeometry, width: int, out_width: int) -> np.ndarray:
    stride, padding = geometry.stride[-1], geometry.padding[-1]
    return np.array(
        [
            (
                max(0, -((j - padding) // stride)),
                min(out_width, (width - 1 + padding - j) // stride + 1),
            )
            for j in range(geometry.kernel_size[-1])
        ],
        np.intp,
    )
