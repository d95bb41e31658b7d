"""Max-Ent pooling of 2×2 windows that tile the planes, the commonest by far, and its gradients.

:mod:`.windows` computes the same for any geometry; see there for segments, for the arrangement of
the tensors and for the sums relative to a centre c. Weights are those of :mod:`.shared_weights`.
The four elements of a window, one lane each of four vectors, stay in registers from the input to
the result, and every element of the input's gradient is written once:

    a b
    c d
"""

from __future__ import annotations

from .arguments import (
    is_given,
    lam_parts,
    next_part,
    rows_of,
    sizes_of,
    tensor,
)
from .block import OF_EACH_PLANE, OF_EACH_ROW, OF_EACH_WINDOW
from .compile import compiled, inlined, native
from .powers import exp2, power_of_two
from .shared_weights import AHEAD, all_hold, holds, shared_scale
from .simd import (
    LOG2_E,
    chosen,
    filled,
    first_lanes,
    interleaved,
    lanes_for,
    load_part,
    maximum,
    multiply_add,
    prefetch,
    prefetch_to_write,
    separated,
    square_root,
    store_part,
    sum_of_lanes,
    with_sign_of,
    zeros_like,
)

__all__ = ["backward", "forward"]


@native
def forward(block):
    """As :func:`.windows.forward`."""
    sizes = sizes_of(block)
    part = next_part(block)
    while part >= 0:
        start_row, stop_row = rows_of(block, part)
        _pool(
            tensor(block, 0), tensor(block, 1), tensor(block, 2), tensor(block, 3),
            is_given(block, 3), sizes, start_row, stop_row,
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
            sizes, start_row, stop_row,
        )  # fmt: skip
        part = next_part(block)


@compiled
def _pool(x, lams, means, deviations, with_spread, sizes, start_row, stop_row):
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
                lam = _lambdas(lams, sizes, lam_start, lane, left)
                weights, inverse, centre, correction, mean = _weigh(x, window, lam, left)
                prefetch_to_write(means, begin + lane + AHEAD)
                store_part(means, begin + lane, mean, left)
                if with_spread:
                    variance = (
                        _squared(window[0], weights[0], centre, correction)
                        + _squared(window[1], weights[1], centre, correction)
                    ) + (
                        _squared(window[2], weights[2], centre, correction)
                        + _squared(window[3], weights[3], centre, correction)
                    )
                    store_part(deviations, begin + lane, square_root(variance * inverse), left)
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
                lam = _lambdas(lams, sizes, lam_start, lane, left)
                weights, inverse, centre, correction, _ = _weigh(x, window, lam, left)
                a, of_lam_a = _differentiate(
                    (window[0] - centre) - correction, weights[0] * inverse, lam, grad
                )
                b, of_lam_b = _differentiate(
                    (window[1] - centre) - correction, weights[1] * inverse, lam, grad
                )
                c, of_lam_c = _differentiate(
                    (window[2] - centre) - correction, weights[2] * inverse, lam, grad
                )
                d, of_lam_d = _differentiate(
                    (window[3] - centre) - correction, weights[3] * inverse, lam, grad
                )
                if with_input:
                    mean = filled(x, 0.0)
                    if with_mean and sizes.pixel > 1:
                        mean = load_part(means, plane * sizes.pixel + lane, left)
                    elif with_mean:
                        mean = filled(means, means[plane])
                    _store_window(
                        x_grads, sizes, corner, lane, left, (a + mean, b + mean, c + mean, d + mean)
                    )
                of_lam = (of_lam_a + of_lam_b) + (of_lam_c + of_lam_d)
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


# ---------------------------------------------------------------- windows


@inlined
def _weigh(x, window, lam, left):
    """The weights of the elements, one over their sum, a centre c, the correction y − c, and y."""
    scale = shared_scale(lam)
    weights = (
        power_of_two(scale, window[0]),
        power_of_two(scale, window[1]),
        power_of_two(scale, window[2]),
        power_of_two(scale, window[3]),
    )
    nowhere = zeros_like(lam)
    total, inverse, centre, correction, mean = _centre(window, weights, nowhere)
    holding = holds(total, mean)
    if all_hold(x, holding, left):
        return weights, inverse, centre, correction, mean
    return _weigh_exactly(window, lam, weights, holding)


@compiled
def _weigh_exactly(window, lam, weights, holding):
    """:func:`_weigh` where some do not hold."""
    nowhere = zeros_like(lam)
    a, b, c, d = window
    sign = with_sign_of(1.0, lam) + 0.0 * lam  # NaN where λ is
    reference = maximum(maximum(a * sign, b * sign), maximum(c * sign, d * sign)) * sign
    exponent = lam * LOG2_E
    weights = (
        chosen(holding, weights[0], exp2(exponent * (a - reference), 2)),
        chosen(holding, weights[1], exp2(exponent * (b - reference), 2)),
        chosen(holding, weights[2], exp2(exponent * (c - reference), 2)),
        chosen(holding, weights[3], exp2(exponent * (d - reference), 2)),
    )
    origin = chosen(holding, nowhere, reference)
    _, inverse, centre, correction, mean = _centre(window, weights, origin)
    return weights, inverse, centre, correction, mean


@compiled
def _centre(x, w, origin):
    """The sum of the weights and one over it, the centre, the correction, the mean."""
    total = (w[0] + w[1]) + (w[2] + w[3])
    inverse = 1.0 / total
    centre = origin + _moment(x, w, origin) * inverse
    offcentre = _moment(x, w, centre)
    # In so many words, so that the two places where this is compiled give the same bits.
    mean = multiply_add(offcentre, inverse, centre)
    return total, inverse, centre, offcentre * inverse, mean


@compiled
def _moment(x, w, centre):
    return multiply_add(w[1], x[1] - centre, w[0] * (x[0] - centre)) + multiply_add(
        w[3], x[3] - centre, w[2] * (x[2] - centre)
    )


@compiled
def _squared(x, w, centre, correction):
    deviation = (x - centre) - correction
    # In this order, since 0 · (a large deviation)² must not be 0 · ∞.
    return w * deviation * deviation


@compiled
def _differentiate(deviation, probability, lam, grad):
    """An element's gradient, and its part of λ's."""
    moment = probability * deviation
    # Not probability · (1 + λ · deviation): where that overflows the probability is 0.
    return (probability + lam * moment) * grad, moment * deviation * grad


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
