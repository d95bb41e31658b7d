"""Log-sum-exp pooling: (1/λ) log mean e^(λ x), relative to the mean, in rare windows to the
extreme."""

from __future__ import annotations

from ...compile import compiled, inlined
from ...elements import largest, mean, smallest
from ...near_one import power_less_one
from ...powers import power_of_two
from ...simd import bits_where_less, chosen, lanes_within, maximum, minimum, zeros_like
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


@inlined
def theta_of(lam, constant):
    return exponent_of(lam)


@inlined
def summary_of(window, exponent):
    """A centre, the output as seen from there, one over the mean of the weights, and θ and 1/θ for
    the derivative by it."""
    centre = mean(_element, window, window.share)
    q = mean(_excess, window, (centre, exponent.scale))
    total = q + 1.0
    shift, inverse_total = log_over_theta(total, q, exponent), 1.0 / total
    holding = hold(q, exponent.theta)
    if holding == lanes_within(zeros_like(q), 0.0, 0.0):
        return centre, shift, inverse_total, exponent.theta, exponent.inverse
    return _summary_exactly(window, exponent, holding, (centre, shift, inverse_total))


@compiled
def _summary_exactly(window, exponent, holding, summary):
    """:func:`summary_of` where the mean of the exponentials less 1 does not do in all lanes."""
    theta = exponent.theta
    least, most = smallest(window), largest(window)
    range = most - least
    reach = maximum(theta, zeros_like(theta) - theta) * range
    extreme = chosen(bits_where_less(theta, zeros_like(theta)), least, most)
    # NaN of what is not finite: extremes may pass over a NaN.
    extreme = extreme + (summary[0] - summary[0])
    # Rounded, the mean need not be between the elements. (In this order NaN stays what it is.)
    between = minimum(most, maximum(least, summary[0]))
    centre = chosen(lanes_within(reach, 0.0, MOST_REACH), between, extreme)
    q = mean(_excess, window, (centre, exponent.scale))
    weights = mean(_weight, window, (centre, exponent.scale))
    total = chosen(lanes_within(q, -0.5, 1e37), q + 1.0, weights)
    shift = chosen(
        lanes_within(reach, 0.0, LEAST_REACH),
        mean(_deviation, window, centre),
        log_over_theta(total, q, exponent),
    )
    of_derivative = theta_of_derivative(theta, reach, range)
    return (
        chosen(holding, summary[0], centre),
        chosen(holding, summary[1], shift),
        chosen(holding, summary[2], 1.0 / total),
        of_derivative,
        1.0 / of_derivative,
    )


@inlined
def output_of(summary, exponent):
    return summary[0] + summary[1]


@inlined
def sensitivity_of(window, summary, exponent):
    centre, shift, inverse_total, theta, inverse = summary
    given = centre, shift, inverse_total, theta, exponent.scale
    sensitivity = mean(_part_of_derivative, window, given) * inverse * inverse
    # Of equal elements whose mean is rounded it may be just below 0, and has a root.
    return maximum(zeros_like(sensitivity), sensitivity)


@inlined
def message_of(window, summary, exponent, grad):
    return summary[0], exponent.scale, grad * window.share * summary[2]


@inlined
def received(x, term, message):
    centre, scale, factor = message
    return power_of_two(scale, x - centre) * factor


@inlined
def _element(x, term, given):
    return x * term


@inlined
def _deviation(x, term, centre):
    return (x - centre) * term


@inlined
def _excess(x, term, given):
    centre, scale = given
    return power_less_one(scale, x - centre) * term


@inlined
def _weight(x, term, given):
    centre, scale = given
    return power_of_two(scale, x - centre) * term


@inlined
def _part_of_derivative(x, term, given):
    centre, shift, inverse_total, theta, scale = given
    deviation = x - centre
    weight = power_of_two(scale, deviation) * inverse_total
    return part_of_derivative(deviation - shift, weight, theta) * term
