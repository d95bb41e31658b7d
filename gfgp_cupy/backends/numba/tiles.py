"""Pooling of 2×2 windows that tile the planes, the commonest by far, and its gradients.

:mod:`.windows` computes the same for any geometry; see there for segments and for the arrangement
of the tensors. The module is loaded once for each window function (:mod:`.loading`).
The four elements of a window, one lane each of four vectors, stay in registers from the input to
the result, and every element of the input's gradient is written once:

    a b
    c d
"""

from __future__ import annotations

from .arguments import (
    constant_of,
    is_given,
    lam_parts,
    next_part,
    rows_of,
    sizes_of,
    tensor,
)
from .block import OF_EACH_PLANE, OF_EACH_ROW, OF_EACH_WINDOW
from .compile import compiled, native
from .loading import given
from .simd import (
    AHEAD,
    filled,
    first_lanes,
    interleaved,
    lanes_for,
    load_part,
    prefetch,
    prefetch_to_write,
    separated,
    store_part,
    sum_of_lanes,
)

__all__ = ["backward", "forward"]

arithmetic = given(__name__, "arithmetic")
"""What a window function does with four elements: :mod:`.any_function.tiles`, or its own."""


@native
def forward(block):
    """As :func:`.windows.forward`."""
    sizes = sizes_of(block)
    part = next_part(block)
    while part >= 0:
        start_row, stop_row = rows_of(block, part)
        _pool(
            tensor(block, 0), tensor(block, 1), tensor(block, 2), tensor(block, 3),
            is_given(block, 3), constant_of(block), sizes, start_row, stop_row,
        )  # fmt: skip
        part = next_part(block)


@native
def backward(block):
    """As :func:`.windows.backward`."""
    sizes = sizes_of(block)
    part = next_part(block)
    while part >= 0:
        start_row, stop_row = rows_of(block, part)
        _send_back(
            tensor(block, 0), tensor(block, 1), tensor(block, 2), tensor(block, 3),
            tensor(block, 4), tensor(block, 5), is_given(block, 3),
            is_given(block, 4), lam_parts(block),
            constant_of(block), sizes, start_row, stop_row,
        )  # fmt: skip
        part = next_part(block)


@compiled
def _pool(x, lams, outputs, spreads, with_spread, constant, sizes, start_row, stop_row):
    plane = start_row // sizes.out_height
    plane_row = start_row - plane * sizes.out_height
    for row in range(start_row, stop_row):
        lam_row = plane * sizes.lam_plane + plane_row * sizes.lam_row
        for column in range(sizes.segments):
            corner = 2 * (row * sizes.width + column) * sizes.pixel
            begin = (row * sizes.segments + column) * sizes.segment
            lam_start = lam_row + column * sizes.lam_column
            for lane in range(0, sizes.segment, lanes_for(x)):
                left = sizes.segment - lane
                window = _window(x, sizes, corner, lane, left)
                theta = arithmetic.theta_of(_lambdas(lams, sizes, lam_start, lane, left), constant)
                weighed = arithmetic.weigh(x, window, theta, left)
                prefetch_to_write(outputs, begin + lane + AHEAD)
                store_part(outputs, begin + lane, arithmetic.output_of(weighed, theta), left)
                if with_spread:
                    kept = arithmetic.kept_of(window, weighed, theta)
                    store_part(spreads, begin + lane, kept, left)
        plane_row += 1
        if plane_row == sizes.out_height:
            plane, plane_row = plane + 1, 0


@compiled
def _send_back(
    grads,
    x,
    lams,
    means,
    x_grads,
    lam_grads,
    with_mean,
    with_input,
    parts,
    constant,
    sizes,
    start_row,
    stop_row,
):
    plane = start_row // sizes.out_height
    plane_row = start_row - plane * sizes.out_height
    row_sum = filled(x, 0.0)
    for row in range(start_row, stop_row):
        lam_row = plane * sizes.lam_plane + plane_row * sizes.lam_row
        of_lam_at = plane if parts == OF_EACH_PLANE else row
        first_row = plane_row == 0 or parts == OF_EACH_ROW
        if first_row:
            row_sum = filled(x, 0.0)
        for column in range(sizes.segments):
            corner = 2 * (row * sizes.width + column) * sizes.pixel
            begin = (row * sizes.segments + column) * sizes.segment
            lam_start = lam_row + column * sizes.lam_column
            for lane in range(0, sizes.segment, lanes_for(x)):
                left = sizes.segment - lane
                window = _window(x, sizes, corner, lane, left)
                prefetch(grads, begin + lane + AHEAD)
                grad = load_part(grads, begin + lane, left)
                theta = arithmetic.theta_of(_lambdas(lams, sizes, lam_start, lane, left), constant)
                weighed = arithmetic.weigh(x, window, theta, left)
                gradients, parts_of_lam = arithmetic.differentiate(
                    window, weighed, theta, grad, parts > 0
                )
                if with_input:
                    mean = filled(x, 0.0)
                    if with_mean and sizes.pixel > 1:
                        mean = load_part(means, plane * sizes.pixel + lane, left)
                    elif with_mean:
                        mean = filled(means, means[plane])
                    a, b, c, d = gradients
                    _store_window(
                        x_grads, sizes, corner, lane, left, (a + mean, b + mean, c + mean, d + mean)
                    )
                of_lam = arithmetic.joined(parts_of_lam)
                if parts == OF_EACH_WINDOW:
                    store_part(lam_grads, begin + lane, of_lam, left)
                elif parts > 0 and sizes.pixel > 1:
                    at = of_lam_at * sizes.pixel + lane
                    if column > 0 or not first_row:
                        of_lam = of_lam + load_part(lam_grads, at, left)
                    store_part(lam_grads, at, of_lam, left)
                elif parts > 0:
                    row_sum = row_sum + first_lanes(of_lam, left)
        if parts > 0 and parts != OF_EACH_WINDOW and sizes.pixel == 1:
            lam_grads[of_lam_at] = sum_of_lanes(row_sum)
        plane_row += 1
        if plane_row == sizes.out_height:
            plane, plane_row = plane + 1, 0


# ---------------------------------------------------------------- between tensors and registers


@compiled
def _lambdas(lam, sizes, start, lane, left):
    if sizes.lam_lane == 0:
        return filled(lam, lam[start])
    return load_part(lam, start + lane, left)


@compiled
def _window(x, sizes, corner, lane, left):
    """The elements of a vector's windows, or of the ``left`` that are left of the segment."""
    below = corner + sizes.width * sizes.pixel
    if sizes.pixel > 1:
        prefetch(x, corner + lane + AHEAD)
        prefetch(x, corner + sizes.pixel + lane + AHEAD)
        prefetch(x, below + lane + AHEAD)
        prefetch(x, below + sizes.pixel + lane + AHEAD)
        return (
            load_part(x, corner + lane, left),
            load_part(x, corner + sizes.pixel + lane, left),
            load_part(x, below + lane, left),
            load_part(x, below + sizes.pixel + lane, left),
        )
    a, b = _load_pairs(x, corner + 2 * lane, left)
    c, d = _load_pairs(x, below + 2 * lane, left)
    return a, b, c, d


@compiled
def _store_window(x, sizes, corner, lane, left, window):
    a, b, c, d = window
    below = corner + sizes.width * sizes.pixel
    if sizes.pixel > 1:
        prefetch_to_write(x, corner + lane + AHEAD)
        prefetch_to_write(x, corner + sizes.pixel + lane + AHEAD)
        prefetch_to_write(x, below + lane + AHEAD)
        prefetch_to_write(x, below + sizes.pixel + lane + AHEAD)
        store_part(x, corner + lane, a, left)
        store_part(x, corner + sizes.pixel + lane, b, left)
        store_part(x, below + lane, c, left)
        store_part(x, below + sizes.pixel + lane, d, left)
    else:
        _store_pairs(x, corner + 2 * lane, a, b, left)
        _store_pairs(x, below + 2 * lane, c, d, left)


@compiled
def _load_pairs(source, at, left):
    """Two vectors, of the first and of the second element of each of ``left`` pairs."""
    lanes = lanes_for(source)
    prefetch(source, at + AHEAD)
    prefetch(source, at + AHEAD + lanes)
    return separated(
        load_part(source, at, 2 * left), load_part(source, at + lanes, 2 * left - lanes)
    )


@compiled
def _store_pairs(target, at, first, second, left):
    low, high = interleaved(first, second)
    lanes = lanes_for(target)
    prefetch_to_write(target, at + AHEAD)
    prefetch_to_write(target, at + AHEAD + lanes)
    store_part(target, at, low, 2 * left)
    store_part(target, at + lanes, high, 2 * left - lanes)
