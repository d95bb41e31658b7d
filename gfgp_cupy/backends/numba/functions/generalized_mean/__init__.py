"""Generalised-mean pooling: (mean x^p)^(1/p). Elements below ε count as ε, and get nothing.

An element's own term is x^(p − 1), made once and shared by its windows: that times x is summed up,
and that times a window's factor is the gradient. Where such powers do not hold, or p is small,
:mod:`.relative` is right.
"""

from __future__ import annotations

from ...apart import apart
from ...compile import inlined
from ...elements import largest, mean, smallest
from ...simd import bits_where_less, chosen, lanes_within, maximum, zeros_like
from .divergence import are_equal, divergence_holds, part_of_divergence, sensitivity_by
from .logarithms import Logarithm, distance, logarithm, logarithm_and_root, power
from .relative import (
    LEAST_POWER,
    LEAST_TERM,
    reference_of,
    relative_sensitivity_of,
    relative_summary_of,
    relative_term_of,
)
from .theta import Summary, finite, theta_of, where_inside

__all__ = [
    "holds", "message_of", "output_of", "received", "reference_of", "relative_term_of",
    "sensitivity_of", "summary_of", "term_of", "theta_of",
]  # fmt: skip

MOST_POWER = 16.0
"""Of p where shared terms hold."""

LEAST_MEAN, MOST_MEAN = 2.0**-100, 2.0**64
"""Of x^p where shared terms hold."""


@inlined
def term_of(x, theta):
    term = power(logarithm(maximum(theta.eps, x)), theta.less_one)
    return maximum(zeros_like(x) + LEAST_TERM, term)


@inlined
def holds(window, theta):
    return mean_holds(mean(_power, window, theta.eps), theta)


@inlined
def mean_holds(of_powers, theta):
    return lanes_within(of_powers, LEAST_MEAN, MOST_MEAN) & lanes_within(
        theta.exponent.theta, LEAST_POWER, MOST_POWER
    )


@inlined
def summary_of(window, theta):
    of_powers = mean(_power, window, theta.eps)
    _, output = logarithm_and_root(of_powers, theta.exponent.inverse, theta.lost)
    slope = output / of_powers
    if _all_shared(window):
        return Summary(output, slope)
    shared, relative = _shared(window), apart(relative_summary_of, (window, theta))
    return Summary(chosen(shared, output, relative.output), chosen(shared, slope, relative.slope))


@inlined
def output_of(summary, theta):
    return summary.output


@inlined
def sensitivity_of(window, summary, theta):
    exponent = theta.exponent
    of_powers = mean(_power, window, theta.eps)
    of_mean, p = logarithm(of_powers), exponent.theta
    given = p, of_mean.whole, of_mean.part, 0.5 / of_powers, theta.eps
    half = mean(_part_of_divergence, window, given)
    divergence = half + half
    sensitivity = sensitivity_by(divergence, summary.output, exponent.inverse)
    holding = divergence_holds(divergence, p * p) & _shared(window)
    all_lanes = lanes_within(zeros_like(window.share), 0.0, 0.0)
    if holding == all_lanes:
        return sensitivity
    equal = mean_holds(of_powers, theta) & _shared(window)
    equal = equal & are_equal(smallest(window), largest(window), theta.eps)
    sensitivity = chosen(equal, zeros_like(sensitivity), sensitivity)
    holding = holding | equal
    if holding == all_lanes:
        return sensitivity
    return chosen(holding, sensitivity, apart(relative_sensitivity_of, (window, theta)))


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
def _power(x, term, eps):
    return finite(x, eps) * term


@inlined
def _part_of_divergence(x, term, given):
    p, whole, part, half_inverse, eps = given
    x = maximum(eps, x)
    half = distance(p, logarithm(x), Logarithm(whole, part))
    return where_inside(term, part_of_divergence(x * term * half_inverse, half))
