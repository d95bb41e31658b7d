"""Generalised-mean pooling relative to a centre c: right for every window and p.

The output is c times the exponential of (1/p) log mean e^(p d), where d is the logarithm of an
element over c, and terms are powers of elements over c. c is the mean of the elements, in rare
windows their extreme or, near p = 0, the geometric mean.
"""

from __future__ import annotations

from ...compile import compiled, inlined
from ...elements import largest, mean, smallest
from ...near_one import log, power_less_one
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
    log_over_theta,
    part_of_derivative,
    theta_of_derivative,
)
from .theta import Summary, finite, where_inside

__all__ = [
    "LEAST_POWER", "LEAST_TERM", "reference_of", "relative_sensitivity_of", "relative_summary_of",
    "relative_term_of",
]  # fmt: skip

LEAST_POWER = 0.5
"""Of |p|. With less, the output may be far from the mean."""

LEAST_TERM, MOST_TERM = 2.0**-124, 2.0**124
"""Of an element inside. The term outside is 0."""


@compiled
def reference_of(window, theta):
    """The centre; NaN of what is not finite."""
    p, eps = theta.exponent.theta, theta.eps
    least, most = _extremes(window, eps)
    magnitude = maximum(p, zeros_like(p) - p)
    middle = mean(_element, window, eps)
    # Rounded, it need not be between the elements. (In this order NaN stays what it is.)
    centre = minimum(most, maximum(least, middle))
    to_geometric = mean(_logarithm, window, (centre, 1.0 / centre, eps))
    geometric = centre * power_of_two(zeros_like(p) + LOG2_E, to_geometric)
    centre = chosen(bits_where_less(magnitude, zeros_like(p) + LEAST_POWER), geometric, centre)
    extreme = chosen(bits_where_less(p, zeros_like(p)), least, most)
    reach = magnitude * log(most / least, (most - least) / least)
    # Extremes may pass over a NaN.
    return chosen(lanes_within(reach, 0.0, MOST_REACH), centre, extreme) + (middle - middle)


@compiled
def relative_term_of(x, centre, theta):
    log_ratio = _log_ratio(x, centre, 1.0 / centre, theta.eps)
    term = power_of_two(theta.exponent.scale - LOG2_E, log_ratio)
    term = maximum(zeros_like(x) + LEAST_TERM, term)
    return minimum(zeros_like(x) + MOST_TERM, term)


@compiled
def relative_summary_of(window, theta):
    """Of windows whose terms are relative to their reference."""
    total, shift, _, _ = _relative(window, theta, window.reference)
    output, ratio = _from_centre(window.reference, shift)
    return Summary(output, ratio / total)


@compiled
def relative_sensitivity_of(window, theta):
    """∂y/∂p. Of the terms it matters only whether they are 0."""
    centre = reference_of(window, theta)
    total, shift, reach, range = _relative(window, theta, centre)
    p = theta_of_derivative(theta.exponent.theta, reach, range)
    given = centre, 1.0 / centre, theta.exponent.scale, theta.eps, shift, 1.0 / total, p
    output, inverse = _from_centre(centre, shift)[0], 1.0 / p
    # In this order: the mean, of terms that p limits, may be as small as p².
    return output * (mean(_part, window, given) * inverse * inverse)


@compiled
def _from_centre(centre, shift):
    """The output, and its ratio to the centre."""
    scale = zeros_like(shift) + LOG2_E
    ratio = power_of_two(scale, shift)
    # Where the ratio is near 1, its rounding is that of the output's last digit.
    near = lanes_within(ratio, 0.5, 2.0)
    return chosen(near, centre + centre * power_less_one(scale, shift), centre * ratio), ratio


@compiled
def _relative(window, theta, centre):
    """The mean of e^(p d); (1/p) its logarithm; how far the logarithms of the elements are apart,
    times |p| and as such."""
    exponent, eps = theta.exponent, theta.eps
    p = exponent.theta
    least, most = _extremes(window, eps)
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
    return total, shift, reach, range


@inlined
def _extremes(window, eps):
    return maximum(eps, smallest(window)), maximum(eps, largest(window))


@inlined
def _log_ratio(x, centre, over_centre, eps):
    x = maximum(eps, x)
    excess = (x - centre) * over_centre
    return log(x * over_centre, excess) + 0.0 * excess  # NaN where that is


@inlined
def _element(x, term, eps):
    return where_inside(term, finite(x, eps))


@inlined
def _logarithm(x, term, given):
    centre, over_centre, eps = given
    return where_inside(term, _log_ratio(x, centre, over_centre, eps))


@inlined
def _excess(x, term, given):
    centre, over_centre, scale, eps = given
    return where_inside(term, power_less_one(scale, _log_ratio(x, centre, over_centre, eps)))


@inlined
def _weight(x, term, given):
    centre, over_centre, scale, eps = given
    return where_inside(term, power_of_two(scale, _log_ratio(x, centre, over_centre, eps)))


@inlined
def _part(x, term, given):
    centre, over_centre, scale, eps, shift, inverse_total, p = given
    deviation = _log_ratio(x, centre, over_centre, eps)
    weight = power_of_two(scale, deviation) * inverse_total
    return where_inside(term, part_of_derivative(deviation - shift, weight, p))
