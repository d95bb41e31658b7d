"""Max-Ent pooling's arithmetic on 2×2 windows: weights of :mod:`..shared_weights`, or their own."""

from __future__ import annotations

from ..compile import compiled, inlined
from ..powers import exp2, power_of_two
from ..shared_weights import all_hold, holds, shared_scale
from ..simd import LOG2_E, chosen, maximum, multiply_add, square_root, with_sign_of, zeros_like

__all__ = ["differentiate", "joined", "kept_of", "output_of", "theta_of", "weigh"]


@compiled
def theta_of(lam, constant):
    return lam


@inlined
def weigh(memory, window, lam, left):
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
    if all_hold(memory, holding, left):
        return weights, inverse, centre, correction, mean
    return _weigh_exactly(window, lam, weights, holding)


@compiled
def output_of(weighed, lam):
    return weighed[4]


@compiled
def kept_of(window, weighed, lam):
    """The standard deviation."""
    weights, inverse, centre, correction, _ = weighed
    variance = (
        _squared(window[0], weights[0], centre, correction)
        + _squared(window[1], weights[1], centre, correction)
    ) + (
        _squared(window[2], weights[2], centre, correction)
        + _squared(window[3], weights[3], centre, correction)
    )
    return square_root(variance * inverse)


@compiled
def differentiate(window, weighed, lam, grad, with_theta):
    """The elements' gradients, and their parts of λ's."""
    weights, inverse, centre, correction, _ = weighed
    a, of_lam_a = _differentiate((window[0] - centre) - correction, weights[0] * inverse, lam, grad)
    b, of_lam_b = _differentiate((window[1] - centre) - correction, weights[1] * inverse, lam, grad)
    c, of_lam_c = _differentiate((window[2] - centre) - correction, weights[2] * inverse, lam, grad)
    d, of_lam_d = _differentiate((window[3] - centre) - correction, weights[3] * inverse, lam, grad)
    return (a, b, c, d), (of_lam_a, of_lam_b, of_lam_c, of_lam_d)


@compiled
def joined(parts):
    """λ's gradient, of its elements' parts."""
    return (parts[0] + parts[1]) + (parts[2] + parts[3])


@compiled
def _weigh_exactly(window, lam, weights, holding):
    """:func:`weigh` where some do not hold."""
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
