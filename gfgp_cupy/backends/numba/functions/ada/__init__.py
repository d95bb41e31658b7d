"""AdaPool: β times the mean under weights e^s, s how like the plain mean m an element is,
2 x m / (x² + m²), and 1 − β times that under weights e^x, relative to the largest element.

s is between −1 and 1, so e^s is a polynomial. Where x² + m² is in range, one division an element
makes s and its derivatives; other windows, which are rare, take the quotient of the smaller of x
and m by the larger (:mod:`.quotients`). Where β is 1 there are no weights e^x.
"""

from __future__ import annotations

from ...compile import inlined
from ...elements import largest, mean, smallest
from ...powers import power_of_two
from ...simd import LOG2_E, chosen, lanes_within, maximum, multiply_add, zeros_like
from .exp_of_likeness import exp_of_likeness
from .quotients import received_exactly, slope_exactly, weights_exactly

__all__ = ["message_of", "output_of", "received", "sensitivity_of", "summary_of", "theta_of"]

LEAST, MOST = 2.0**-45, 2.0**45
"""Of m's magnitude and of the elements', where x² + m² and what is made of it are in range."""

NOTHING = 2.0**-120
"""Is added to x² + m², so that s is 0 where both are."""


@inlined
def theta_of(beta, constant):
    return beta


@inlined
def summary_of(window, beta):
    """m; of each mean one over that of its weights, and what it is more than m; the slope of the
    one by likeness by m; the largest element; and in which lanes x² + m² is in range."""
    middle, most = mean(_element, window, window.share), largest(window)
    simple = _is_simple(middle, most, smallest(window))
    given = middle, middle * middle + NOTHING
    likeness = 1.0 / mean(_weight_by_likeness, window, given)
    shift = likeness * mean(_distance_by_likeness, window, given)
    slope = likeness * mean(_slope_by_mean, window, (given[0], given[1], shift))
    if not is_in_all_lanes(simple, middle):
        exactly = weights_exactly(window, middle)
        slope = chosen(simple, slope, slope_exactly(window, middle, exactly[0], exactly[1]))
        likeness = chosen(simple, likeness, exactly[0])
        shift = chosen(simple, shift, exactly[1])
    size = shift_by_size = zeros_like(middle)
    if not _is_one(beta):
        size, shift_by_size = by_size_exactly(window, most, middle)
    return middle, likeness, shift, slope, most, size, shift_by_size, simple


@inlined
def output_of(summary, beta):
    middle, shift, shift_by_size = summary[0], summary[2], summary[6]
    return middle + (shift + (1.0 - beta) * (shift_by_size - shift))


@inlined
def sensitivity_of(window, summary, beta):
    shift_by_size = summary[6]
    if _is_one(beta):
        shift_by_size = by_size_exactly(window, summary[4], summary[0])[1]
    return summary[2] - shift_by_size


@inlined
def message_of(window, summary, beta, grad):
    """The summary, weighted by β and the gradient; of the slope each element's part."""
    middle, likeness, shift, slope, most, size, shift_by_size, simple = summary
    of_likeness = grad * beta * window.share
    of_size = grad * (1.0 - beta) * window.share
    return (
        middle, of_likeness * likeness, shift, of_likeness * slope, most, of_size * size,
        shift_by_size, simple, _is_one(beta),
    )  # fmt: skip


@inlined
def received(x, term, message):
    """p (1 + (x − y) ds/dx) of each mean, where ds/dx is 1 by size; and what comes by way of m."""
    middle, likeness, shift, by_mean, most, size, shift_by_size, simple, likeness_only = message
    distance = x - middle
    weight, inverse = _likeness(x, middle, middle * middle + NOTHING)
    slope = (middle + middle) * inverse * (distance * (x + middle) * inverse)
    gradient = likeness * (weight - weight * (slope * (distance - shift)))
    if not is_in_all_lanes(simple, x):
        gradient = chosen(simple, gradient, received_exactly(x, middle, likeness, shift))
    gradient = gradient + by_mean
    if not likeness_only:
        weight_by_size = size * weight_of_size(x, most)
        gradient = gradient + (weight_by_size + weight_by_size * (distance - shift_by_size))
    return gradient


@inlined
def _is_simple(middle, most, least):
    """In which lanes x² + m² is in range, or all elements are 0."""
    magnitude = maximum(most, zeros_like(most) - least)
    in_range = lanes_within(middle * middle, LEAST * LEAST, MOST * MOST)
    in_range &= lanes_within(magnitude, 0.0, MOST)
    return in_range | (lanes_within(magnitude, 0.0, 0.0) & lanes_within(middle, 0.0, 0.0))


@inlined
def is_in_all_lanes(bits, vector):
    """Whether the bits of all lanes are set."""
    return bits == lanes_within(zeros_like(vector), 0.0, 0.0)


@inlined
def _is_one(beta):
    return is_in_all_lanes(lanes_within(beta, 1.0, 1.0), beta)


@inlined
def by_size_exactly(window, most, middle):
    """One over the mean of the weights e^x, and what the mean under them is more than m."""
    size = 1.0 / mean(_weight_by_size, window, most)
    return size, size * mean(_distance_by_size, window, (most, middle))


@inlined
def _likeness(x, middle, square):
    """e^s, and one over x² + m²."""
    inverse = 1.0 / multiply_add(x, x, square)
    return exp_of_likeness((middle + middle) * (x * inverse)), inverse


@inlined
def weight_of_size(x, most):
    return power_of_two(zeros_like(x) + LOG2_E, x - most)


@inlined
def _element(x, term, given):
    return x * term


@inlined
def _weight_by_likeness(x, term, given):
    return _likeness(x, given[0], given[1])[0] * term


@inlined
def _distance_by_likeness(x, term, given):
    return _likeness(x, given[0], given[1])[0] * term * (x - given[0])


@inlined
def _slope_by_mean(x, term, given):
    middle, square, shift = given
    weight, inverse = _likeness(x, middle, square)
    distance = x - middle
    slope = (x + x) * inverse * (distance * (x + middle) * inverse)
    return weight * term * (slope * (distance - shift))


@inlined
def _weight_by_size(x, term, most):
    return weight_of_size(x, most) * term


@inlined
def _distance_by_size(x, term, given):
    most, middle = given
    return weight_of_size(x, most) * term * (x - middle)
