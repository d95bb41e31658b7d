"""Max-Ent pooling and its gradients on a CPU, compiled with Numba.

Tensors come as 1-D arrays of their memory, contiguous or channels_last. A *segment* is a run of
windows that lie side by side in the output: a row of a plane (contiguous), or the channels of one
pixel (channels_last). Some segments, or a piece of one, are worked on at a time: their elements
are gathered into scratch memory that stays in the cache, a row for each position of the kernel, so
that window m of all rows is lane m of vectors, whatever the geometry and the layout.

An element outside the input (in the padding, or past the end in ceil mode) is stood for by the
nearest element inside, which belongs to the same window and so does not change its maximum; a bias
of −∞ on its exponent gives it the weight 0.

All sums are relative to the window's maximum r (minimum where λ < 0), as in backend ``torch``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np

from .cpu_vectors import (
    exp2, filled, first_lanes, lanes_for, load, load_even_elements, maximum,
    spread_over_even_lanes, square_root, store, sum_of_lanes, with_sign_of,
)

__all__ = ["Sizes", "backward", "forward"]

SCRATCH_BYTES = 32 * 1024
"""A first-level cache's worth."""

LOG2_E = 1.4426950408889634


class Sizes(NamedTuple):
    """The sizes of a call, and the strides of λ, in elements.

    Attributes:
        pixel: elements from a pixel to the next: 1 in contiguous planes, C in channels_last.
        lam_plane, lam_row, lam_column: steps in λ from one plane, output row or output column to
            the next; 0 along an axis that λ does not have. (A plane is a sample in channels_last,
            whose λ has all the channels of a pixel side by side.)
    """

    pixel: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    padding_h: int
    padding_w: int
    lam_plane: int
    lam_row: int
    lam_column: int


class _Rows(NamedTuple):
    """Where the rows of scratch memory begin.

    λ, the windows' results and their further results have one row each; the elements, their
    weights and the biases one for each kernel position. ``bias_step`` is 0 where no bias is needed
    and all positions share one row.
    """

    length: int
    result: int
    further: int
    elements: int
    weights: int
    bias: int
    bias_step: int
    positions: int


def _compiled(function):
    return numba.njit(nogil=True, error_model="numpy")(function)


def _cached(function):
    """Compiled and kept on disk.

    Numba names the file after the function, and looks only at the age of this source file to see
    whether it still holds; the digest in the name makes any change in either source a new name.
    """
    sources = (Path(__file__), Path(__file__).with_name("cpu_vectors.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    function.__qualname__ += f"_{digest[:16]}"
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # Numba finds no directory that it may write to: every process compiles for itself.
        return numba.njit(**options)(function)


@_cached
def forward(input, lam, output, spread, sizes, start_row, stop_row):
    """Pools output rows from ``start_row`` to before ``stop_row``, counted over all planes.

    Writes each window's mean to ``output`` and, unless it is empty, its standard deviation to
    ``spread``.
    """
    lanes, rows = _scratch_rows(input, sizes)
    scratch = np.zeros(_scratch_elements(rows), input.dtype)
    columns = _columns_inside(sizes)
    length = _segment_length(sizes)
    per_row = _segments_per_row(sizes)
    at_once, piece = max(1, lanes // length), min(length, lanes)
    stop = stop_row * per_row
    for segment in range(start_row * per_row, stop, at_once):
        count = min(at_once, stop - segment)
        for first in range(0, length, piece):
            last = min(first + piece, length)
            _gather(sizes, columns, input, lam, scratch, rows, segment, count, first, last)
            _average(scratch, rows, count * (last - first), spread.size > 0)
            begin = segment * length + first
            _write(output, begin, scratch, rows.result, count * (last - first))
            if spread.size > 0:
                _write(spread, begin, scratch, rows.further, count * (last - first))


@_cached
def backward(
    grad_output, input, lam, mean_grad, grad_input, grad_lam, sizes, start_row, stop_row
):
    """The gradients that output rows from ``start_row`` to before ``stop_row`` answer for.

    Of ``grad_input``, those are the rows from the first that window row ``start_row`` reaches to
    before the first that ``stop_row`` reaches: earlier windows that reach into them are computed
    again. So ranges of rows are independent, and the order of additions is always the same.

    ``grad_lam`` receives each window's part of λ's gradient if it is as large as
    ``grad_output``, else the sums over the columns of each output row. An empty ``grad_input`` or
    ``grad_lam`` is not needed. ``mean_grad``, one number a plane (a channel of a sample), is added
    to each element's gradient.
    """
    lanes, rows = _scratch_rows(input, sizes)
    scratch = np.zeros(_scratch_elements(rows), input.dtype)
    columns = _columns_inside(sizes)
    length = _segment_length(sizes)
    per_row = _segments_per_row(sizes)
    at_once, piece = max(1, lanes // length), min(length, lanes)
    own_start, own_stop = _first_input_row(sizes, start_row), _first_input_row(sizes, stop_row)
    begun = own_start  # the input rows before this one have their first value
    earlier = min((sizes.kernel_h - 1) // sizes.stride_h, start_row % sizes.out_height)
    stop = stop_row * per_row
    for segment in range((start_row - earlier) * per_row, stop, at_once):
        count = min(at_once, stop - segment)
        for first in range(0, length, piece):
            last = min(first + piece, length)
            begin = segment * length + first
            _gather(sizes, columns, input, lam, scratch, rows, segment, count, first, last)
            _read(scratch, rows.result, grad_output, begin, 1, count * (last - first))
            _differentiate(scratch, rows, count * (last - first))
            if grad_input.size > 0:
                begun = _begin_rows(
                    sizes, grad_input, mean_grad, begun,
                    min(own_stop, _last_input_row(sizes, segment + count - 1)),
                )
                _scatter(
                    sizes, columns, grad_input, scratch, rows, segment, count, first, last,
                    own_start, own_stop,
                )
            if grad_lam.size == grad_output.size:
                skipped = max(0, start_row * per_row - segment) * (last - first)
                _write(
                    grad_lam, begin + skipped, scratch, rows.further + skipped,
                    count * (last - first) - skipped,
                )
            elif grad_lam.size > 0:
                _add_to_row_sums(
                    sizes, grad_lam, scratch, rows, segment, count, first, last, start_row
                )
    if grad_input.size > 0:
        _begin_rows(sizes, grad_input, mean_grad, begun, own_stop)


# ---------------------------------------------------------------- windows, a vector at a time


@_compiled
def _average(scratch, rows, count, with_spread):
    """From elements, λ and bias: the means and, if asked for, the standard deviations."""
    for lane in range(0, count, lanes_for(scratch)):
        _, reference, total, shift = _weigh(scratch, rows, lane)
        store(scratch, rows.result + lane, reference + shift)
        if with_spread:
            variance = filled(scratch, 0.0)
            for k in range(rows.positions):
                offset = k * rows.length + lane
                deviation = (load(scratch, rows.elements + offset) - reference) - shift
                # In this order, since 0 · (a large deviation)² must not be 0 · ∞.
                variance = variance + load(scratch, rows.weights + offset) * deviation * deviation
            store(scratch, rows.further + lane, square_root(variance / total))


@_compiled
def _differentiate(scratch, rows, count):
    """From the means' gradients (in the row for results): λ's, and the elements' (as weights)."""
    for lane in range(0, count, lanes_for(scratch)):
        lam, reference, total, shift = _weigh(scratch, rows, lane)
        scale = load(scratch, rows.result + lane) / total
        grad_lam = filled(scratch, 0.0)
        for k in range(rows.positions):
            offset = k * rows.length + lane
            deviation = (load(scratch, rows.elements + offset) - reference) - shift
            weight = load(scratch, rows.weights + offset) * scale
            moment = weight * deviation
            store(scratch, rows.weights + offset, weight + lam * moment)
            grad_lam = grad_lam + moment * deviation
        store(scratch, rows.further + lane, grad_lam)


@_compiled
def _weigh(scratch, rows, lane):
    """λ, the reference element r, the total Σ exp(λ (x − r)), which it leaves as weights, and y − r.
    """
    lam = load(scratch, lane)
    sign = with_sign_of(1.0, lam) + 0.0 * lam  # NaN where λ is
    reference = filled(scratch, -np.inf)
    for k in range(rows.positions):
        element = load(scratch, rows.elements + k * rows.length + lane)
        reference = maximum(element * sign, reference)
    reference = reference * sign
    exponent = lam * LOG2_E
    total = filled(scratch, 0.0)
    weighted = filled(scratch, 0.0)
    for k in range(rows.positions):
        offset = k * rows.length + lane
        distance = load(scratch, rows.elements + offset) - reference
        weight = exp2(exponent * distance + load(scratch, rows.bias + k * rows.bias_step + lane))
        store(scratch, rows.weights + offset, weight)
        total = total + weight
        weighted = weighted + weight * distance
    return lam, reference, total, weighted / total


# ---------------------------------------------------------------- between tensors and scratch


@_compiled
def _gather(sizes, columns, input, lam, scratch, rows, segment, count, first, last):
    """Windows ``first`` to before ``last`` of each of ``count`` segments: λ, elements, biases."""
    length = last - first
    lam_step = 1 if sizes.pixel > 1 else sizes.lam_column
    plane, row, column = _position(sizes, segment)
    for at in range(0, count * length, length):
        lam_start = plane * sizes.lam_plane + row * sizes.lam_row + column * sizes.lam_column
        _read(scratch, at, lam, lam_start + first * lam_step, lam_step, length)
        for i in range(sizes.kernel_h):
            y = row * sizes.stride_h + i - sizes.padding_h
            inside = 0 <= y < sizes.height
            start = (plane * sizes.height + max(0, min(y, sizes.height - 1))) * sizes.width
            for j in range(sizes.kernel_w):
                k = i * sizes.kernel_w + j
                x = column * sizes.stride_w + j - sizes.padding_w
                elements = rows.elements + k * rows.length + at
                bias = rows.bias + k * rows.bias_step + at
                if sizes.pixel > 1:
                    nearest = max(0, min(x, sizes.width - 1))
                    _read(
                        scratch, elements, input, (start + nearest) * sizes.pixel + first, 1, length
                    )
                    if rows.bias_step > 0:
                        _fill(scratch, bias, 0.0 if inside and x == nearest else -np.inf, length)
                else:
                    low = max(first, min(columns[j, 0], last)) - first
                    high = max(first + low, min(columns[j, 1], last)) - first
                    _read(
                        scratch, elements + low, input,
                        start + x + (first + low) * sizes.stride_w, sizes.stride_w, high - low,
                    )
                    if rows.bias_step > 0:
                        _fill(scratch, elements, input[start], low)
                        _fill(scratch, elements + high, input[start + sizes.width - 1], length - high)
                        _fill(scratch, bias, -np.inf, low)
                        _fill(scratch, bias + low, 0.0 if inside else -np.inf, high - low)
                        _fill(scratch, bias + high, -np.inf, length - high)
        plane, row, column = _next(sizes, plane, row, column)
