"""Max-Ent pooling's arithmetic on 3×3 windows at stride 2: one exponential an element.

λ does not vary inside a plane, so an element has the same weight 2^(λ log₂e · x) in all windows
that hold it: the weights of :mod:`..shared_weights`, where they hold.
"""

from __future__ import annotations

from ..compile import compiled, inlined
from ..powers import exp2, power_of_two
from ..shared_weights import all_hold, holds, shared_scale
from ..simd import LOG2_E, chosen, maximum, multiply_add, square_root, with_sign_of, zeros_like
from ..strips import columns_inside, row_is_inside

__all__ = [
    "joined", "kept_of", "message_of", "output_of", "scale_of", "send", "term_of", "theta_of",
    "weigh",
]  # fmt: skip


@compiled
def theta_of(lam, constant):
    return lam


@compiled
def scale_of(lam, constant):
    """What the weights are made with."""
    return shared_scale(lam)


@compiled
def term_of(x, scale):
    return power_of_two(scale, x)


@inlined
def weigh(scratch, sizes, strip, k, left, top, x, w, lam):
    """A vector of windows, rows of three: their elements and weights; one over the sum
    of their weights, their centre c, the correction y − c, and y."""
    nowhere = zeros_like(x[0][0])
    total, inverse, centre, correction, mean = _centre(x, w, nowhere)
    holding = holds(total, mean)
    if not all_hold(scratch, holding, left):
        columns = columns_inside(scratch, sizes, strip, k)
        inside = (
            row_is_inside(sizes, top), row_is_inside(sizes, top + 1), row_is_inside(sizes, top + 2),
        )  # fmt: skip
        w, inverse, centre, correction, mean = _weighed_exactly(x, w, lam, holding, columns, inside)
    return w, (inverse, centre, correction, mean)


@compiled
def output_of(weighed, lam):
    return weighed[3]


@compiled
def kept_of(x, w, weighed, lam):
    """The standard deviation."""
    inverse, centre, correction, _ = weighed
    variance = (
        _spread_of(w[0], x[0], centre, correction)
        + _spread_of(w[1], x[1], centre, correction)
        + _spread_of(w[2], x[2], centre, correction)
    )
    return square_root(variance * inverse)


@compiled
def message_of(x, w, weighed, lam, grad, with_theta):
    inverse, centre, correction, _ = weighed
    return centre, correction, inverse, lam, grad


@compiled
def send(x, w, message):
    """The gradients of a row of elements, and their part of λ's."""
    centre, correction, inverse, lam, grad = message
    return _differentiate(x, w, centre, correction, inverse, lam, grad)


@compiled
def joined(part, further):
    """λ's gradient, of two rows' parts."""
    return part + further


@compiled
def _weighed_exactly(x, w, lam, holding, columns, inside):
    """What :func:`weigh` gives, with weights of their own for windows whose shared ones do not
    hold."""
    sign = with_sign_of(1.0, lam) + 0.0 * lam  # NaN where λ is
    reference = _extreme(_extreme(_largest(x[0], sign), x[1], sign), x[2], sign) * sign
    w = (
        _weights(x[0], reference, lam, holding, w[0], columns, inside[0]),
        _weights(x[1], reference, lam, holding, w[1], columns, inside[1]),
        _weights(x[2], reference, lam, holding, w[2], columns, inside[2]),
    )
    origin = chosen(holding, zeros_like(lam), reference)
    _, inverse, centre, correction, mean = _centre(x, w, origin)
    return w, inverse, centre, correction, mean


@compiled
def _centre(x, w, origin):
    """The sum of the weights and one over it, the centre, the correction, the mean."""
    total = (_sum(w[0]) + _sum(w[1])) + _sum(w[2])
    inverse = 1.0 / total
    weighted = (_moment(w[0], x[0], origin) + _moment(w[1], x[1], origin)) + _moment(
        w[2], x[2], origin
    )
    centre = origin + weighted * inverse
    offcentre = (_moment(w[0], x[0], centre) + _moment(w[1], x[1], centre)) + _moment(
        w[2], x[2], centre
    )
    # In so many words, so that the two places where this is compiled give the same bits.
    mean = multiply_add(offcentre, inverse, centre)
    return total, inverse, centre, offcentre * inverse, mean


@compiled
def _sum(row):
    return (row[0] + row[1]) + row[2]


@compiled
def _moment(w, x, centre):
    first = w[0] * (x[0] - centre)
    return multiply_add(w[2], x[2] - centre, multiply_add(w[1], x[1] - centre, first))


@compiled
def _spread_of(w, x, centre, correction):
    a, b, c = (
        (x[0] - centre) - correction,
        (x[1] - centre) - correction,
        (x[2] - centre) - correction,
    )
    # In this order, since 0 · (a large deviation)² must not be 0 · ∞.
    return (w[0] * a * a + w[1] * b * b) + w[2] * c * c


@compiled
def _largest(x, sign):
    return maximum(maximum(x[0] * sign, x[1] * sign), x[2] * sign)


@compiled
def _extreme(so_far, x, sign):
    return maximum(_largest(x, sign), so_far)


@compiled
def _weights(x, reference, lam, holding, shared, columns, inside):
    """The weights relative to a window's extreme, of the windows whose shared ones do not hold."""
    exponent = lam * LOG2_E
    a, b, c = x[0] - reference, x[1] - reference, x[2] - reference
    return (
        chosen(holding, shared[0], exp2(exponent * a, 4) * (columns[0] * inside)),
        chosen(holding, shared[1], exp2(exponent * b, 4) * (columns[1] * inside)),
        chosen(holding, shared[2], exp2(exponent * c, 4) * (columns[2] * inside)),
    )


@compiled
def _differentiate(x, w, centre, correction, inverse, lam, grad):
    """The gradients of a row of elements, and their part of λ's."""
    a, of_lam_a = _derivative((x[0] - centre) - correction, w[0] * inverse, lam)
    b, of_lam_b = _derivative((x[1] - centre) - correction, w[1] * inverse, lam)
    c, of_lam_c = _derivative((x[2] - centre) - correction, w[2] * inverse, lam)
    return (a * grad, b * grad, c * grad), ((of_lam_a + of_lam_b) + of_lam_c) * grad


@compiled
def _derivative(deviation, probability, lam):
    moment = probability * deviation
    # Not probability · (1 + λ · deviation): where that overflows the probability is 0.
    return probability + lam * moment, moment * deviation
