"""Max-Ent pooling of 2×2 windows that tile the planes, the commonest by far, and its gradients.

:mod:`.windows` computes the same for any geometry; see there for segments, for the
arrangement of the tensors and for the sums relative to the window's maximum r (minimum where
λ < 0) and then to a centre c. Here the four elements of a window, one lane each of four vectors,
stay in registers from the input to the result, and every element of the input's gradient is
written once:

    a b
    c d
"""

from __future__ import annotations

from .compile import cached, compiled
from .simd import (
    LOG2_E,
    exp2,
    filled,
    first_lanes,
    interleaved,
    lanes_for,
    load,
    load_first,
    maximum,
    pointer_to,
    separated,
    square_root,
    store,
    store_first,
    sum_of_lanes,
    with_sign_of,
)

__all__ = ["backward", "forward"]


@cached
def forward(input, lam, output, spread, sizes, start_row, stop_row):
    """Pools output rows from ``start_row`` to before ``stop_row``, counted over all planes.

    Writes each window's mean to ``output`` and, unless it is empty, its standard deviation to
    ``spread``.
    """
    with_spread = spread.size > 0
    x, lams = pointer_to(input), pointer_to(lam)
    means, deviations = pointer_to(output), pointer_to(spread)
    for segment in range(start_row * sizes.segments, stop_row * sizes.segments):
        corner, lam_start, _ = _place(sizes, segment)
        begin = segment * sizes.segment
        for lane in range(0, sizes.segment, lanes_for(x)):
            left = sizes.segment - lane
            window = _window(x, sizes, corner, lane, left)
            lambdas = _lambdas(lams, sizes, lam_start, lane, left)
            centre, correction, offsets, weights, inverse = _weigh(window, lambdas)
            _store(means, begin + lane, centre + correction, left)
            if with_spread:
                variance = filled(x, 0.0)
                for i in range(4):
                    deviation = offsets[i] - correction
                    # In this order, since 0 · (a large deviation)² must not be 0 · ∞.
                    variance = variance + weights[i] * deviation * deviation
                _store(deviations, begin + lane, square_root(variance * inverse), left)


@cached
def backward(grad_output, input, lam, mean_grad, grad_input, grad_lam, sizes, start_row, stop_row):
    """The gradients of the windows of output rows from ``start_row`` to before ``stop_row``.

    Arguments are those of :func:`.windows.backward`.
    """
    with_input, with_lam = grad_input.size > 0, grad_lam.size > 0
    of_each_window = grad_lam.size == grad_output.size
    x, lams, means = pointer_to(input), pointer_to(lam), pointer_to(mean_grad)
    grads, x_grads, lam_grads = (
        pointer_to(grad_output),
        pointer_to(grad_input),
        pointer_to(grad_lam),
    )
    lam_parts = filled(x, 0.0)
    for segment in range(start_row * sizes.segments, stop_row * sizes.segments):
        corner, lam_start, plane = _place(sizes, segment)
        row, begin = segment // sizes.segments, segment * sizes.segment
        for lane in range(0, sizes.segment, lanes_for(x)):
            left = sizes.segment - lane
            window = _window(x, sizes, corner, lane, left)
            lambdas = _lambdas(lams, sizes, lam_start, lane, left)
            _, correction, offsets, weights, inverse = _weigh(window, lambdas)
            grad = _load(grads, begin + lane, left)
            if sizes.pixel > 1:
                mean = _load(means, plane * sizes.pixel + lane, left)
            else:
                mean = filled(means, means[plane])
            a, of_lam_a = _differentiate(
                offsets[0] - correction, weights[0] * inverse, lambdas, grad
            )
            b, of_lam_b = _differentiate(
                offsets[1] - correction, weights[1] * inverse, lambdas, grad
            )
            c, of_lam_c = _differentiate(
                offsets[2] - correction, weights[2] * inverse, lambdas, grad
            )
            d, of_lam_d = _differentiate(
                offsets[3] - correction, weights[3] * inverse, lambdas, grad
            )
            if with_input:
                _store_window(
                    x_grads, sizes, corner, lane, left, (a + mean, b + mean, c + mean, d + mean)
                )
            if with_lam:
                parts = (of_lam_a + of_lam_b) + (of_lam_c + of_lam_d)
                if of_each_window:
                    _store(lam_grads, begin + lane, parts, left)
                elif sizes.pixel > 1:
                    at = row * sizes.pixel + lane
                    _store(lam_grads, at, _load(lam_grads, at, left) + parts, left)
                else:
                    lam_parts = lam_parts + first_lanes(parts, left)
        if with_lam and sizes.pixel == 1 and not of_each_window:
            lam_grads[row] = sum_of_lanes(lam_parts)
            lam_parts = filled(x, 0.0)


# ---------------------------------------------------------------- windows


@compiled
def _weigh(window, lam):
    """A centre c and the correction y − c, the offsets x − c, their weights exp(λ (x − r)) / 4,
    and one over the sum of these."""
    a, b, c, d = window
    sign = with_sign_of(1.0, lam) + 0.0 * lam  # NaN where λ is
    reference = maximum(maximum(a * sign, b * sign), maximum(c * sign, d * sign)) * sign
    exponent = lam * LOG2_E
    a, b, c, d = a - reference, b - reference, c - reference, d - reference
    p, q = exp2(exponent * a, 2), exp2(exponent * b, 2)
    r, s = exp2(exponent * c, 2), exp2(exponent * d, 2)
    inverse = 1.0 / ((p + q) + (r + s))
    centre = reference + ((p * a + q * b) + (r * c + s * d)) * inverse
    a, b, c, d = window[0] - centre, window[1] - centre, window[2] - centre, window[3] - centre
    correction = ((p * a + q * b) + (r * c + s * d)) * inverse
    return centre, correction, (a, b, c, d), (p, q, r, s), inverse


@compiled
def _differentiate(deviation, probability, lam, grad):
    """An element's gradient, and its part of λ's."""
    moment = probability * deviation
    # Not probability · (1 + λ · deviation): where that overflows the probability is 0.
    return (probability + lam * moment) * grad, moment * deviation * grad


# ---------------------------------------------------------------- between tensors and registers


@compiled
def _place(sizes, segment):
    """Where a segment's first window and its λ begin, and its plane."""
    output_row = segment // sizes.segments
    plane = output_row // sizes.out_height
    row, column = output_row - plane * sizes.out_height, segment - output_row * sizes.segments
    corner = ((plane * sizes.height + 2 * row) * sizes.width + 2 * column) * sizes.pixel
    lam = plane * sizes.lam_plane + row * sizes.lam_row + column * sizes.lam_column
    return corner, lam, plane


@compiled
def _lambdas(lam, sizes, start, lane, left):
    if sizes.lam_lane == 0:
        return filled(lam, lam[start])
    return _load(lam, start + lane, left)


@compiled
def _window(x, sizes, corner, lane, left):
    """The elements of a vector's windows, or of the ``left`` that are left of the segment."""
    below = corner + sizes.width * sizes.pixel
    if sizes.pixel > 1:
        return (
            _load(x, corner + lane, left),
            _load(x, corner + sizes.pixel + lane, left),
            _load(x, below + lane, left),
            _load(x, below + sizes.pixel + lane, left),
        )
    a, b = _load_pairs(x, corner + 2 * lane, left)
    c, d = _load_pairs(x, below + 2 * lane, left)
    return a, b, c, d


@compiled
def _store_window(x, sizes, corner, lane, left, window):
    a, b, c, d = window
    below = corner + sizes.width * sizes.pixel
    if sizes.pixel > 1:
        _store(x, corner + lane, a, left)
        _store(x, corner + sizes.pixel + lane, b, left)
        _store(x, below + lane, c, left)
        _store(x, below + sizes.pixel + lane, d, left)
    else:
        _store_pairs(x, corner + 2 * lane, a, b, left)
        _store_pairs(x, below + 2 * lane, c, d, left)


@compiled
def _load(source, at, left):
    """A vector, or its first ``left`` lanes."""
    if left >= lanes_for(source):
        return load(source, at)
    return load_first(source, at, left)


@compiled
def _load_pairs(source, at, left):
    """Two vectors, of the first and of the second element of each of ``left`` pairs."""
    lanes = lanes_for(source)
    return separated(_load(source, at, 2 * left), _load(source, at + lanes, 2 * left - lanes))


@compiled
def _store(target, at, vector, left):
    if left >= lanes_for(target):
        store(target, at, vector)
    else:
        store_first(target, at, vector, left)


@compiled
def _store_pairs(target, at, first, second, left):
    low, high = interleaved(first, second)
    lanes = lanes_for(target)
    _store(target, at, low, 2 * left)
    _store(target, at + lanes, high, 2 * left - lanes)
