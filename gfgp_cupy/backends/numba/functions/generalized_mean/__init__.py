"""Generalised-mean pooling: (mean x^p)^(1/p). Elements below ε count as ε, and get nothing.

An element's own term is x^(p − 1), made once and shared by its windows: that times x is summed up,
and that times a window's factor is the gradient. Where such powers do not hold, or p is small, the
output is a centre c times the exponential of (1/p) log mean e^(p d), where d is the logarithm of an
element over c, and terms are powers of elements over c. c is the mean of the elements, in rare
windows their extreme or, near p = 0, the geometric mean.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...compile import compiled, inlined
from ...elements import largest, mean, smallest
from ...near_one import log, power, power_less_one
from ...powers import power_of_two
from ...simd import (
    LOG2_E,
    bits_where_less,
    chosen,
    lanes_within,
    maximum,
    minimum,
    zeros_like,
)
from ..log_mean_exp import (
    LEAST_REACH,
    MOST_REACH,
    excess_and_part_of_derivative,
    exponent_of,
    log_over_theta,
    part_of_derivative,
    theta_of_derivative,
)

__all__ = [
    "holds", "message_of", "output_of", "received", "reference_of", "relative_term_of",
    "sensitivity_of", "summary_of", "term_of", "theta_of",
]  # fmt: skip

LEAST_POWER, MOST_POWER = 0.5, 16.0
"""Of p where shared terms hold. With less, the output may be far from the mean, too."""

LEAST_MEAN, MOST_MEAN = 2.0**-100, 2.0**64
"""Of x^p where shared terms hold."""

LEAST_TERM, MOST_TERM = 2.0**-124, 2.0**124
"""Of an element inside. The term outside is 0."""


class Theta(NamedTuple):
    """p as in :mod:`..log_mean_exp`, what 1/p lost when it was rounded, p − 1 and ε."""

    exponent: Any
    lost: Any
    less_one: Any
    eps: Any


class Summary(NamedTuple):
    """Of a window. The rest is for terms that are relative to a centre.

    Attributes:
        output: y.
        inverse_total: one over the mean of the terms times the elements (over the centre).
        slope: y over that mean (y over the centre).
        over_centre: one over the centre.
        shift: log(y / centre).
        theta, inverse: p and 1/p for the derivative by it.
    """

    output: Any
    inverse_total: Any
    slope: Any
    over_centre: Any
    shift: Any
    theta: Any
    inverse: Any


@inlined
def theta_of(p, eps):
    exponent = exponent_of(p)
    lost = (1.0 - p * exponent.inverse) * exponent.inverse
    return Theta(exponent, lost, p - 1.0, zeros_like(p) + eps)


@inlined
def term_of(x, theta):
    # (Of two of which one is NaN, ``maximum`` gives the second.)
    term = power(maximum(theta.eps, x), theta.less_one, zeros_like(x))
    return maximum(zeros_like(x) + LEAST_TERM, term)


@inlined
def holds(window, theta):
    of_powers = mean(_power, window, theta.eps)
    return lanes_within(of_powers, LEAST_MEAN, MOST_MEAN) & lanes_within(
        theta.exponent.theta, LEAST_POWER, MOST_POWER
    )


@compiled
def reference_of(window, theta):
    """The centre; NaN of what is not finite."""
    p, eps = theta.exponent.theta, theta.eps
    least, most, finite = _extremes(window, eps)
    magnitude = maximum(p, zeros_like(p) - p)
    centre = mean(_element, window, eps)
    over_centre = 1.0 / centre
    to_geometric = mean(_logarithm, window, (centre, over_centre, eps))
    geometric = centre * power_of_two(zeros_like(p) + LOG2_E, to_geometric)
    centre = chosen(bits_where_less(magnitude, zeros_like(p) + LEAST_POWER), geometric, centre)
    extreme = chosen(bits_where_less(p, zeros_like(p)), least, most)
    reach = magnitude * log(most / least, (most - least) / least)
    return chosen(lanes_within(reach, 0.0, MOST_REACH), centre, extreme) + finite


@compiled
def relative_term_of(x, centre, theta):
    log_ratio = _log_ratio(x, centre, 1.0 / centre, theta.eps)
    term = power_of_two(theta.exponent.scale - LOG2_E, log_ratio)
    term = maximum(zeros_like(x) + LEAST_TERM, term)
    return minimum(zeros_like(x) + MOST_TERM, term)


@inlined
def summary_of(window, theta):
    exponent, nothing = theta.exponent, zeros_like(theta.eps)
    of_powers = mean(_power, window, theta.eps)
    inverse_total = 1.0 / of_powers
    output = power(of_powers, exponent.inverse, theta.lost)
    slope = output * inverse_total
    summary = Summary(
        output, inverse_total, slope, nothing, nothing, exponent.theta, exponent.inverse
    )
    if _all_shared(window):
        return summary
    return _summary_exactly(window, theta, summary)


@compiled
def _summary_exactly(window, theta, summary):
    """:func:`summary_of` where some windows have terms of their own."""
    exponent, eps, centre = theta.exponent, theta.eps, window.reference
    p = exponent.theta
    least, most, _ = _extremes(window, eps)
    range = log(most / least, (most - least) / least)
    reach = maximum(p, zeros_like(p) - p) * range
    over_centre = 1.0 / centre
    given = centre, over_centre, exponent.scale, eps
    q = mean(_excess, window, given)
    total = chosen(lanes_within(q, -0.5, 1e37), q + 1.0, mean(_weight, window, given))
    shift = chosen(
        lanes_within(reach, 0.0, LEAST_REACH),
        mean(_logarithm, window, (centre, over_centre, eps)),
        log_over_theta(total, q, exponent),
    )
    of_derivative = theta_of_derivative(p, reach, range)
    scale = zeros_like(shift) + LOG2_E
    ratio = power_of_two(scale, shift)
    # Where the ratio is near 1, its rounding is that of the output's last digit.
    near = lanes_within(ratio, 0.5, 2.0)
    output = chosen(near, centre + centre * power_less_one(scale, shift), centre * ratio)
    shared, inverse_total = _shared(window), 1.0 / total
    return Summary(
        chosen(shared, summary.output, output),
        chosen(shared, summary.inverse_total, inverse_total),
        chosen(shared, summary.slope, ratio * inverse_total),
        over_centre,
        shift,
        of_derivative,
        1.0 / of_derivative,
    )


@inlined
def output_of(summary, theta):
    return summary.output


@inlined
def sensitivity_of(window, summary, theta):
    """With distances from the rounded output, whose error they tell: e^(p d) is on average 1 + m
    where it should be 1, and to the second order in m it is what makes the difference."""
    exponent = theta.exponent
    given = (
        summary.output, 1.0 / summary.output, exponent.theta, summary.inverse_total, theta.eps,
    )  # fmt: skip
    m = mean(_excess_of_output, window, given)
    part = mean(_part_from_output, window, given)
    part = part - m * part - 0.5 * (m * m)
    sensitivity = summary.output * part * exponent.inverse * exponent.inverse
    if _all_shared(window):
        return sensitivity
    return _sensitivity_exactly(window, summary, theta, sensitivity)


@compiled
def _sensitivity_exactly(window, summary, theta, sensitivity):
    given = (
        window.reference, summary.over_centre, theta.exponent.scale, theta.eps, summary.shift,
        summary.inverse_total, summary.theta,
    )  # fmt: skip
    part = mean(_part_from_centre, window, given)
    exact = summary.output * part * summary.inverse * summary.inverse
    return chosen(_shared(window), sensitivity, exact)


@inlined
def message_of(window, summary, theta, grad):
    """What the terms are multiplied by, and ε."""
    return grad * window.share * summary.slope, theta.eps


@inlined
def received(x, term, message):
    factor, eps = message
    return chosen(bits_where_less(x, eps), zeros_like(x), term) * factor


@inlined
def _shared(window):
    """The bits of the lanes whose terms are relative to nothing."""
    return lanes_within(window.reference, 0.0, 0.0)


@inlined
def _all_shared(window):
    return _shared(window) == lanes_within(zeros_like(window.share), 0.0, 0.0)


@inlined
def _extremes(window, eps):
    """The least and the largest element; 0, or NaN where one is not finite."""
    least, most = smallest(window), largest(window)
    return maximum(eps, least), maximum(eps, most), (most - most) + (least - least)


@inlined
def _log_ratio(x, centre, over_centre, eps):
    x = maximum(eps, x)
    excess = (x - centre) * over_centre
    return log(x * over_centre, excess) + 0.0 * excess  # NaN where that is


@inlined
def _finite(x, eps):
    # The product makes an element that is -∞ NaN.
    return maximum(eps, x) + 0.0 * x


@inlined
def _power(x, term, eps):
    return _finite(x, eps) * term


@inlined
def _where_inside(term, value):
    return chosen(lanes_within(term, 0.0, 0.0), zeros_like(value), value)


@inlined
def _element(x, term, eps):
    return _where_inside(term, _finite(x, eps))


@inlined
def _logarithm(x, term, given):
    centre, over_centre, eps = given
    return _where_inside(term, _log_ratio(x, centre, over_centre, eps))


@inlined
def _excess(x, term, given):
    centre, over_centre, scale, eps = given
    return _where_inside(term, power_less_one(scale, _log_ratio(x, centre, over_centre, eps)))


@inlined
def _weight(x, term, given):
    centre, over_centre, scale, eps = given
    return _where_inside(term, power_of_two(scale, _log_ratio(x, centre, over_centre, eps)))


@inlined
def _part_from_centre(x, term, given):
    centre, over_centre, scale, eps, shift, inverse_total, p = given
    deviation = _log_ratio(x, centre, over_centre, eps)
    weight = power_of_two(scale, deviation) * inverse_total
    return _where_inside(term, part_of_derivative(deviation - shift, weight, p))


@inlined
def _excess_of_output(x, term, given):
    return _where_inside(term, _from_output(x, term, given)[0])


@inlined
def _part_from_output(x, term, given):
    return _where_inside(term, _from_output(x, term, given)[1])


@inlined
def _from_output(x, term, given):
    output, over_output, p, inverse_total, eps = given
    x = maximum(eps, x)
    ratio = x * over_output
    z = p * log(ratio, (x - output) * over_output)
    return excess_and_part_of_derivative(z, term * x * inverse_total)
