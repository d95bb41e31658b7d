"""Generalised-mean pooling: a centre c times the exponential of (1/p) log mean e^(p d), where d is
the logarithm of an element over c. Elements below ε count as ε, and get nothing.

c is the mean of the elements, in rare windows their extreme or, near p = 0, the geometric mean.
"""

from __future__ import annotations

from ...compile import compiled, inlined
from ...elements import largest, mean, smallest
from ...near_one import log, power_less_one
from ...powers import power_of_two
from ...simd import LOG2_E, bits_where_less, chosen, lanes_within, maximum, zeros_like
from ..log_mean_exp import (
    LEAST_REACH,
    MOST_REACH,
    exponent_of,
    hold,
    log_over_theta,
    part_of_derivative,
    theta_of_derivative,
)

__all__ = ["message_of", "output_of", "received", "sensitivity_of", "summary_of", "theta_of"]

LEAST_POWER = 0.5
"""Of |p|: with less, the output may be far from the mean."""


@inlined
def theta_of(p, eps):
    return exponent_of(p), zeros_like(p) + eps


@inlined
def summary_of(window, theta):
    """The centre and one over it, log(y / c), one over the mean of the weights, and p and 1/p for
    the derivative by it."""
    exponent, eps = theta
    centre = mean(_element, window, eps)
    over_centre = 1.0 / centre
    q = mean(_excess, window, (centre, over_centre, exponent.scale, eps))
    total = q + 1.0
    shift = log_over_theta(total, q, exponent)
    summary = centre, over_centre, shift, 1.0 / total, exponent.theta, exponent.inverse
    holding = hold(q, exponent.theta) & (
        lanes_within(exponent.theta, LEAST_POWER, 1e37)
        | lanes_within(exponent.theta, -1e37, -LEAST_POWER)
    )
    if holding == lanes_within(zeros_like(q), 0.0, 0.0):
        return summary
    return _summary_exactly(window, theta, holding, summary)


@compiled
def _summary_exactly(window, theta, holding, summary):
    """:func:`summary_of` where the mean of the exponentials less 1 does not do in all lanes."""
    exponent, eps = theta
    p, zero = exponent.theta, zeros_like(eps)
    least, most = maximum(eps, smallest(window)), maximum(eps, largest(window))
    range = log(most / least, (most - least) / least)
    magnitude = maximum(p, zero - p)
    reach = magnitude * range
    centre = summary[0]
    to_geometric = mean(_logarithm, window, (centre, summary[1], eps))
    geometric = centre * power_of_two(zero + LOG2_E, to_geometric)
    centre = chosen(bits_where_less(magnitude, zero + LEAST_POWER), geometric, centre)
    extreme = chosen(bits_where_less(p, zero), least, most)
    extreme = extreme + ((most - most) + (least - least))
    centre = chosen(lanes_within(reach, 0.0, MOST_REACH), centre, extreme)
    over_centre = 1.0 / centre
    given = centre, over_centre, exponent.scale, eps
    q = mean(_excess, window, given)
    weights = mean(_weight, window, given)
    total = chosen(lanes_within(q, -0.5, 1e37), q + 1.0, weights)
    shift = chosen(
        lanes_within(reach, 0.0, LEAST_REACH),
        mean(_logarithm, window, (centre, over_centre, eps)),
        log_over_theta(total, q, exponent),
    )
    of_derivative = theta_of_derivative(p, reach, range)
    return (
        chosen(holding, summary[0], centre),
        chosen(holding, summary[1], over_centre),
        chosen(holding, summary[2], shift),
        chosen(holding, summary[3], 1.0 / total),
        of_derivative,
        1.0 / of_derivative,
    )


@inlined
def output_of(summary, theta):
    centre, shift = summary[0], summary[2]
    scale = zeros_like(shift) + LOG2_E
    power = power_of_two(scale, shift)
    # Where the power is near 1, its rounding is that of the output's last digit.
    near = lanes_within(power, 0.5, 2.0)
    return chosen(near, centre + centre * power_less_one(scale, shift), centre * power)


@inlined
def sensitivity_of(window, summary, theta):
    exponent, eps = theta
    centre, over_centre, shift, inverse_total, p, inverse = summary
    given = centre, over_centre, exponent.scale, eps, shift, inverse_total, p
    return output_of(summary, theta) * mean(_part_of_derivative, window, given) * inverse * inverse


@inlined
def message_of(window, summary, theta, grad):
    """What makes (x / c)^(p − 1) of an element, and what that is multiplied by."""
    exponent, eps = theta
    centre, over_centre, shift, inverse_total, _, _ = summary
    power = power_of_two(zeros_like(shift) + LOG2_E, shift)
    factor = grad * window.share * inverse_total * power
    return centre, over_centre, exponent.scale - LOG2_E, eps, factor


@inlined
def received(x, term, message):
    centre, over_centre, scale, eps, factor = message
    power = power_of_two(scale, _log_ratio(x, centre, over_centre, eps))
    return chosen(bits_where_less(x, eps), zeros_like(x), power) * factor


@inlined
def _log_ratio(x, centre, over_centre, eps):
    x = maximum(eps, x)
    return log(x * over_centre, (x - centre) * over_centre)


@inlined
def _element(x, term, eps):
    # The product makes an element that is -∞ NaN.
    return (maximum(eps, x) + 0.0 * x) * term


@inlined
def _logarithm(x, term, given):
    centre, over_centre, eps = given
    return _log_ratio(x, centre, over_centre, eps) * term


@inlined
def _excess(x, term, given):
    centre, over_centre, scale, eps = given
    return power_less_one(scale, _log_ratio(x, centre, over_centre, eps)) * term


@inlined
def _weight(x, term, given):
    centre, over_centre, scale, eps = given
    return power_of_two(scale, _log_ratio(x, centre, over_centre, eps)) * term


@inlined
def _part_of_derivative(x, term, given):
    centre, over_centre, scale, eps, shift, inverse_total, p = given
    deviation = _log_ratio(x, centre, over_centre, eps)
    weight = power_of_two(scale, deviation) * inverse_total
    return part_of_derivative(deviation - shift, weight, p) * term
