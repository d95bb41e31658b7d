"""Pooling of windows of very many elements, and its gradients, where these lie in the input: of
planes and of volumes, of any geometry.

:mod:`.windows` keeps some rows of scratch for each element of a window. Here nothing is kept: a
window is as many runs as it has rows inside the input, or one where it has the rows' whole width,
and each pass over its elements reads them again (:mod:`.runs`).

The module is loaded once for each window function (:mod:`.loading`).
``sizes`` and ``pieces`` are those of a plan (:mod:`.plan`).
"""

from __future__ import annotations

from .arguments import (
    constant_of,
    extras_of,
    is_given,
    lam_parts,
    next_part,
    rows_of,
    scratch_of,
    sizes_of,
    tensor,
)
from .block import OF_EACH_WINDOW
from .compile import compiled, native
from .loading import given
from .places import begin_rows, first_input_row, position_of
from .plan import Pieces
from .runs import Place, for_each_lane
from .simd import filled, lanes_for, store_part, zeros_like

__all__ = ["backward", "forward"]

arithmetic = given(__name__, "arithmetic")
""":mod:`.any_function.long_windows`, for a window function."""

WINDOWS_TOGETHER = 32
"""Of a row, whose gradients of λ are summed up before they are added to those of others."""


@native
def forward(block):
    """Pools the output rows of the block's parts. Tensors: input, λ, each window's output, and
    perhaps its spread."""
    sizes, pieces = sizes_of(block), extras_of(block, Pieces)
    x, lams, outputs, spreads = (
        tensor(block, 0), tensor(block, 1), tensor(block, 2), tensor(block, 3),
    )  # fmt: skip
    with_spread = is_given(block, 3)
    constant = constant_of(block)
    part = next_part(block)
    while part >= 0:
        start_row, stop_row = rows_of(block, part)
        work = scratch_of(block, part)
        for row in range(start_row, stop_row):
            for channel in range(0, sizes.pixel, lanes_for(x)):
                for column in range(_columns(sizes)):
                    place, share = _window(sizes, pieces, x, row, column, channel, work)
                    at, count = _output(sizes, row, column, channel), place.windows
                    lam_at = _parameter(sizes, row, column, channel)
                    lam = for_each_lane(lams, lam_at, count, work)
                    output, spread = arithmetic.average(place, share, lam, with_spread, constant)
                    store_part(outputs, at, output, count)
                    if with_spread:
                        store_part(spreads, at, spread, count)
        part = next_part(block)


@native
def backward(block):
    """The gradients that the output rows of the block's parts answer for. Tensors: as those of
    :func:`.windows.backward`, but a part has all the windows that share elements with its own."""
    sizes, pieces = sizes_of(block), extras_of(block, Pieces)
    grads, x, lams, means, x_grads, lam_grads = (
        tensor(block, 0), tensor(block, 1), tensor(block, 2), tensor(block, 3), tensor(block, 4),
        tensor(block, 5),
    )  # fmt: skip
    with_mean, with_input, with_lam = is_given(block, 3), is_given(block, 4), is_given(block, 5)
    of_each_window = lam_parts(block) == OF_EACH_WINDOW
    constant = constant_of(block)
    covers = _covers(sizes)
    part = next_part(block)
    while part >= 0:
        start_row, stop_row = rows_of(block, part)
        work = scratch_of(block, part)
        if with_input and not covers:
            start, stop = first_input_row(sizes, start_row), first_input_row(sizes, stop_row)
            begin_rows(sizes, x_grads, means, with_mean, start, stop)
        for row in range(start_row, stop_row):
            for channel in range(0, sizes.pixel, lanes_for(x)):
                of_row = of_some = filled(x, 0.0)
                for column in range(_columns(sizes)):
                    place, share = _window(sizes, pieces, x, row, column, channel, work)
                    at, count = _output(sizes, row, column, channel), place.windows
                    lam_at = _parameter(sizes, row, column, channel)
                    lam = for_each_lane(lams, lam_at, count, work)
                    grad = for_each_lane(grads, at, count, work)
                    mean = filled(x, 0.0)
                    if covers and with_mean:
                        mean = for_each_lane(means, at, count, work)
                    of_lam = arithmetic.differentiate(
                        place, share, lam, grad, with_lam, constant, x_grads, with_input, mean,
                        not covers,
                    )  # fmt: skip
                    if with_lam and of_each_window:
                        store_part(lam_grads, at, of_lam, count)
                    of_some = of_some + of_lam
                    if (column + 1) % WINDOWS_TOGETHER == 0:
                        of_row, of_some = of_row + of_some, zeros_like(of_some)
                if with_lam and not of_each_window:
                    at = row * sizes.pixel + channel
                    store_part(lam_grads, at, of_row + of_some, sizes.pixel - channel)
        part = next_part(block)


@compiled
def _columns(sizes):
    """Windows side by side, each a channel's."""
    return sizes.segment if sizes.pixel == 1 else sizes.segments


@compiled
def _covers(sizes):
    """Whether every plane, or volume, is one window."""
    return (
        sizes.out_depth == sizes.out_height == _columns(sizes) == 1
        and sizes.padding_d == sizes.padding_h == sizes.padding_w == 0
        and sizes.kernel_d >= sizes.depth
        and sizes.kernel_h >= sizes.height
        and sizes.kernel_w >= sizes.width
    )


@compiled
def _window(sizes, pieces, x, row, column, channel, work):
    """Where the elements of a window are, or of some channels' from ``channel`` on, and one over
    their number."""
    plane, depth, y, _ = position_of(sizes, row * sizes.segments)
    front, back = _inside(depth, sizes.stride_d, sizes.padding_d, sizes.kernel_d, sizes.depth)
    top, bottom = _inside(y, sizes.stride_h, sizes.padding_h, sizes.kernel_h, sizes.height)
    left, right = _inside(column, sizes.stride_w, sizes.padding_w, sizes.kernel_w, sizes.width)
    start = ((plane * sizes.depth + front) * sizes.height + top) * sizes.width + left
    deep, high, length = back - front, bottom - top, right - left
    elements = deep * high * length
    if length == sizes.width:
        length, high = length * high, 1
        if bottom - top == sizes.height:
            length, deep = length * deep, 1
    lanes = lanes_for(x)
    windows = min(lanes, sizes.pixel - channel)
    ahead = max(1, lanes // sizes.pixel)
    whole = length // ahead * ahead
    place = Place(
        x,
        start * sizes.pixel + channel,
        deep * high,
        high,
        sizes.width * sizes.pixel,
        sizes.height * sizes.width * sizes.pixel,
        length,
        sizes.pixel,
        windows,
        ahead,
        whole if windows * ahead == lanes else 0,
        whole,
        windows * ahead,
        (length - whole) * windows,
        for_each_lane(x, start * sizes.pixel + channel, windows, work),
        pieces.piece,
        pieces.runs_together,
        filled(x, 1.0 / (1 << pieces.halvings)),
        work,
    )
    return place, filled(x, 1.0 / elements)


@compiled
def _inside(window, stride, padding, kernel, length):
    """From where to before where a window has elements along an axis of that ``length``."""
    start = window * stride - padding
    return max(0, start), min(length, start + kernel)


@compiled
def _output(sizes, row, column, channel):
    """Where the windows' outputs begin."""
    return (row * _columns(sizes) + column) * sizes.pixel + channel


@compiled
def _parameter(sizes, row, column, channel):
    """Where their λ do."""
    plane, depth, y, _ = position_of(sizes, row * sizes.segments)
    at = plane * sizes.lam_plane + depth * sizes.lam_depth + y * sizes.lam_row
    return at + column * sizes.lam_column + channel
