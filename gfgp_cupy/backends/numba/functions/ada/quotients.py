"""AdaPool's likeness in any window: by the quotient of the smaller of x and m by the larger.

As :mod:`.` has it, s = 2 x m / (x² + m²); the quotient's square is in range.
"""

from __future__ import annotations

from ...compile import compiled, inlined
from ...elements import mean
from ...simd import bits_where_less, chosen, equality, maximum, zeros_like
from .exp_of_likeness import exp_of_likeness

__all__ = ["received_exactly", "slope_exactly", "weights_exactly"]


@compiled
def weights_exactly(window, middle):
    """One over the mean of the weights, and what the mean under them is more than m."""
    likeness = 1.0 / mean(_weight_by_likeness, window, middle)
    return likeness, likeness * mean(_distance_by_likeness, window, middle)


@compiled
def slope_exactly(window, middle, likeness, shift):
    """The derivative of that mean by m."""
    return likeness * mean(_slope_by_mean, window, (middle, shift))


@compiled
def received_exactly(x, middle, likeness, shift):
    """``likeness`` times the weight of x and 1 + (x − y) ds/dx."""
    slope, _, weight = _slopes(x, middle, (x - middle) - shift)
    return likeness * (weight + weight * slope)


@inlined
def _compared(x, middle):
    """The smaller of x and m by the larger; the larger; 1; and where x is the larger. Where both
    are 0, the first is 0, the second 1 and the third 0."""
    zero = zeros_like(x)
    x_is_larger = bits_where_less(maximum(middle, zero - middle), maximum(x, zero - x))
    larger = chosen(x_is_larger, x, middle)
    both_zero = equality(larger, zero)
    divisor = larger + both_zero
    return chosen(x_is_larger, middle, x) / divisor, divisor, 1.0 - both_zero, x_is_larger


@inlined
def _likeness_weight(quotient):
    """e^s / 4, which is below 1: so no product with a distance is out of range."""
    weight = exp_of_likeness(2.0 * quotient / (1.0 + quotient * quotient))
    return weight / (4.0 * exp_of_likeness(zeros_like(quotient)))


@inlined
def _slopes(x, middle, distance):
    """``distance`` times the derivatives of s by x and by m, and the weight of x."""
    quotient, divisor, not_zero, x_is_larger = _compared(x, middle)
    square = quotient * quotient
    inverse = 1.0 / (1.0 + square)
    # The distance by the larger one is in range.
    by_smaller = 2.0 * not_zero * (distance / divisor) * (1.0 - square) * inverse * inverse
    by_larger = zeros_like(x) - quotient * by_smaller
    by_x = chosen(x_is_larger, by_larger, by_smaller)
    by_mean = chosen(x_is_larger, by_smaller, by_larger)
    return by_x, by_mean, _likeness_weight(quotient)


@inlined
def _weight_by_likeness(x, term, middle):
    return _likeness_weight(_compared(x, middle)[0]) * term


@inlined
def _distance_by_likeness(x, term, middle):
    return _likeness_weight(_compared(x, middle)[0]) * term * (x - middle)


@inlined
def _slope_by_mean(x, term, given):
    middle, shift = given
    _, slope, weight = _slopes(x, middle, (x - middle) - shift)
    return weight * term * slope
