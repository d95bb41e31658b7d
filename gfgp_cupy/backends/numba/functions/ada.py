"""AdaPool: β times the mean under weights e^s, s how like the plain mean m an element is,
2 x m / (x² + m²), and 1 − β times that under weights e^x, relative to the largest element."""

from __future__ import annotations

from ..compile import inlined
from ..elements import largest, mean
from ..powers import exp2
from ..simd import LOG2_E, bits_where_less, chosen, equality, maximum, zeros_like

__all__ = ["message_of", "output_of", "received", "sensitivity_of", "summary_of", "theta_of"]


@inlined
def theta_of(beta, constant):
    return beta


@inlined
def summary_of(window, beta):
    """m; of each mean one over that of its weights, and what it is more than m; the slope of the
    one by likeness by m; and the largest element."""
    middle, most = mean(_element, window, window.share), largest(window)
    likeness = 1.0 / mean(_weight_by_likeness, window, middle)
    size = 1.0 / mean(_weight_by_size, window, most)
    shift = likeness * mean(_distance_by_likeness, window, middle)
    shift_by_size = size * mean(_distance_by_size, window, (most, middle))
    slope = likeness * mean(_slope_by_mean, window, (middle, shift))
    return middle, likeness, shift, slope, most, size, shift_by_size


@inlined
def output_of(summary, beta):
    middle, _, shift, _, _, _, shift_by_size = summary
    return middle + (shift_by_size + beta * (shift - shift_by_size))


@inlined
def sensitivity_of(window, summary, beta):
    return summary[2] - summary[6]


@inlined
def message_of(window, summary, beta, grad):
    """The summary, weighted by β and the gradient; of the slope each element's part."""
    middle, likeness, shift, slope, most, size, shift_by_size = summary
    of_likeness = grad * beta * window.share
    of_size = grad * (1.0 - beta) * window.share
    return (
        middle, of_likeness * likeness, shift, of_likeness * slope, most, of_size * size,
        shift_by_size,
    )  # fmt: skip


@inlined
def received(x, term, message):
    """p (1 + (x − y) ds/dx) of each mean, where ds/dx is 1 by size; and what comes by way of m."""
    middle, likeness, shift, by_mean, most, size, shift_by_size = message
    slope, _, weight = _slopes(x, middle, (x - middle) - shift)
    by_likeness = likeness * (weight + weight * slope)
    weight_by_size = size * exp2((x - most) * LOG2_E, 0.0)
    by_size = weight_by_size + weight_by_size * ((x - middle) - shift_by_size)
    return (by_likeness + by_mean) + by_size


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
    """e^(s − 1)."""
    return exp2((2.0 * quotient / (1.0 + quotient * quotient) - 1.0) * LOG2_E, 0.0)


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
def _element(x, term, given):
    return x * term


@inlined
def _weight_by_likeness(x, term, middle):
    return _likeness_weight(_compared(x, middle)[0]) * term


@inlined
def _distance_by_likeness(x, term, middle):
    return _likeness_weight(_compared(x, middle)[0]) * term * (x - middle)


@inlined
def _weight_by_size(x, term, most):
    return exp2((x - most) * LOG2_E, 0.0) * term


@inlined
def _distance_by_size(x, term, given):
    most, middle = given
    return exp2((x - most) * LOG2_E, 0.0) * term * (x - middle)


@inlined
def _slope_by_mean(x, term, given):
    middle, shift = given
    _, slope, weight = _slopes(x, middle, (x - middle) - shift)
    return weight * term * slope
