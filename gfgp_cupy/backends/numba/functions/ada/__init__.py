"""AdaPool: β times the mean under weights e^s, s how like the plain mean m an element is,
2 x m / (x² + m²), and 1 − β times that under weights e^x, relative to the largest element r.

The mean by likeness is kept as what it is more than m, that by size as what it is more than a
centre c. Elements that have a weight by size are near r, however far from m: about m the digits in
which they differ would be lost. So c is r, but m where all elements are near r: about r the mean of
a large window, which may be much less, would have the rounding errors of a long sum.

s is between −1 and 1, so e^s is a polynomial. Where x² + m² is in range, one division an element
makes s and its derivatives; other windows, which are rare, take the quotient of the smaller of x
and m by the larger (:mod:`.quotients`). Where β is 1 there are no weights e^x.
"""

from __future__ import annotations

from ...compile import inlined
from ...elements import largest, mean, smallest
from ...powers import power_of_two
from ...simd import (
    LOG2_E,
    bits_where_less,
    chosen,
    lanes_within,
    maximum,
    multiply_add,
    zeros_like,
)
from .exp_of_likeness import exp_of_likeness
from .quotients import received_exactly, slope_exactly, weights_exactly

__all__ = ["message_of", "output_of", "received", "sensitivity_of", "summary_of", "theta_of"]

LEAST, MOST = 2.0**-45, 2.0**45
"""Of m's magnitude and of the elements', where x² + m² and what is made of it are in range."""

NOTHING = 2.0**-120
"""Is added to x² + m², so that s is 0 where both are."""

NEAR = 10.0
"""Where neither an element nor m, as rounded, is farther from r, c is m."""


@inlined
def theta_of(beta, constant):
    return beta


@inlined
def summary_of(window, beta):
    """m; of the mean by likeness one over that of its weights, what it is more than m, and its
    slope by m; r; one over the mean of the weights by size, c, and what that mean is more than c;
    and in which lanes x² + m² is in range."""
    middle, most, least = mean(_element, window, window.share), largest(window), smallest(window)
    simple = _is_simple(middle, most, least)
    given = middle, middle * middle + NOTHING
    likeness = 1.0 / mean(_weight_by_likeness, window, given)
    shift = likeness * mean(_distance_by_likeness, window, given)
    slope = likeness * mean(_slope_by_mean, window, (given[0], given[1], shift))
    if not is_in_all_lanes(simple, middle):
        exactly = weights_exactly(window, middle)
        slope = chosen(simple, slope, slope_exactly(window, middle, exactly[0], exactly[1]))
        likeness = chosen(simple, likeness, exactly[0])
        shift = chosen(simple, shift, exactly[1])
    size, centre, shift_by_size = zeros_like(middle), middle, zeros_like(middle)
    if not _is_one(beta):
        size, centre, shift_by_size = by_size_exactly(window, middle, most, least)
    return middle, likeness, shift, slope, most, size, centre, shift_by_size, simple


@inlined
def output_of(summary, beta):
    middle, _, shift, _, _, _, centre, shift_by_size, _ = summary
    return mixed(middle, shift, centre, shift_by_size, beta)


@inlined
def sensitivity_of(window, summary, beta):
    middle, _, shift, _, most, _, centre, shift_by_size, _ = summary
    if _is_one(beta):
        _, centre, shift_by_size = by_size_exactly(window, middle, most, smallest(window))
    return difference(middle, shift, centre, shift_by_size)


@inlined
def message_of(window, summary, beta, grad):
    """The summary, weighted by β and the gradient; of the slope each element's part; and of the
    mean by size what it is more than r."""
    middle, likeness, shift, slope, most, size, centre, shift_by_size, simple = summary
    of_likeness = grad * beta * window.share
    of_size = grad * (1.0 - beta) * window.share
    return (
        middle, of_likeness * likeness, shift, of_likeness * slope, most, of_size * size,
        shift_by_size + (centre - most), simple, _is_one(beta),
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
        gradient = gradient + (weight_by_size + weight_by_size * ((x - most) - shift_by_size))
    return gradient


@inlined
def mixed(middle, shift, centre, shift_by_size, beta):
    """β times the mean by likeness and 1 − β times that by size. Starts from the one that counts
    more: of one that counts for nothing it has no rounding errors."""
    is_by_size = bits_where_less(beta, zeros_like(beta) + 0.5)
    part = chosen(is_by_size, beta, beta - 1.0)
    shift_of_it = chosen(is_by_size, shift_by_size, shift)
    apart = difference(middle, shift, centre, shift_by_size)
    return chosen(is_by_size, centre, middle) + multiply_add(part, apart, shift_of_it)


@inlined
def difference(middle, shift, centre, shift_by_size):
    """The mean by likeness less that by size, of nearly equal elements to the last digits."""
    return (shift - shift_by_size) + (middle - centre)


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
def by_size_exactly(window, middle, most, least):
    """One over the mean of the weights e^x; c; and what the mean under them is more than c."""
    size = 1.0 / mean(_weight_by_size, window, most)
    is_near = lanes_within(most - least, 0.0, NEAR) & lanes_within(most - middle, -NEAR, NEAR)
    centre = chosen(is_near, middle, most)
    return size, centre, size * mean(_distance_by_size, window, (most, centre))


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
    most, centre = given
    return weight_of_size(x, most) * term * (x - centre)
