"""(1/θ) log mean e^(θ d) of a window, to the last digits at every limit of θ, for window functions
that are made of it; d is how far an element is from some centre.

It is log(1 + q) / θ, where q = mean (e^(θ d) − 1). Its derivative by d is the weight e^(θ d) over
the sum of the weights; that by θ is the mean of d² χ(θ d), where d is the distance from the result
and χ(z) = (1 + (z − 1) e^z) / z², which is never negative: nothing cancels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types

from ..compile import inlined
from ..near_one import log
from ..powers import polynomial_of_type
from ..simd import (
    LOG2_E,
    bits_where_less,
    chosen,
    lanes_within,
    maximum,
    zeros_like,
)

__all__ = [
    "LEAST_REACH", "MOST_REACH", "Exponent", "exponent_of", "hold",
    "log_over_theta", "part_of_derivative", "theta_of_derivative", "usable",
]  # fmt: skip

LEAST_REACH, MOST_REACH = 2.0**-53, 12.0
"""Of |θ| and the range of d. With less, exponentials less 1 might be too small to be exact, and the
result is that at θ = 0; with more, exponentials relative to a mean might overflow."""

LEAST_RANGE = 2.0**-120
"""What stands for a smaller one."""

LEAST_THETA = 2.0**-20
"""From which on a reach that is too small is that of elements as good as equal."""

MOST_EXCESS = 2.0**12
"""Of q, where exponentials relative to a mean will do."""


class Exponent(NamedTuple):
    """θ, θ log₂e and 1/θ."""

    theta: Any
    scale: Any
    inverse: Any


@inlined
def exponent_of(theta):
    return Exponent(theta, theta * LOG2_E, 1.0 / theta)


@inlined
def hold(q, theta):
    """The bits of the lanes in which q will do; others are rare unless |θ| is large or nearly 0."""
    return usable(theta) & lanes_within(q, -0.5, MOST_EXCESS)


@inlined
def usable(theta):
    """The bits of the lanes in which θ is neither nearly 0 nor too large for these."""
    return lanes_within(theta, LEAST_THETA, 1e37) | lanes_within(theta, -1e37, -LEAST_THETA)


@inlined
def log_over_theta(total, q, exponent):
    """log(1 + q) / θ, where ``total`` is 1 + q."""
    return log(total, q) * exponent.inverse


@inlined
def part_of_derivative(distance, weight, theta):
    """z² χ(z), where z is θ d and ``weight`` is e^z."""
    # A product with a weight that is 0 must not be NaN.
    z = maximum(theta * distance, zeros_like(distance) - 1e4)
    square = z * z
    near = bits_where_less(square, zeros_like(z) + 1.0)
    return chosen(near, square * _chi(z), (z - 1.0) * weight + 1.0)


@inlined
def theta_of_derivative(theta, reach, range):
    """θ, or where that leaves its limit at 0 alone as good as unchanged, one that does so, too, but
    with which no square is 0."""
    least = (zeros_like(theta) + LEAST_REACH) / maximum(range, zeros_like(range) + LEAST_RANGE)
    return chosen(lanes_within(reach, 0.0, LEAST_REACH), least, theta)


# χ(z) for |z| <= 1, the polynomial whose largest relative error is least: 3.8e-8 and 1.6e-19.
_COEFFICIENTS = {
    types.float32: (
        0.4999999839907849,
        0.3333334041052051,
        0.12500056277597418,
        0.03333279735151484,
        0.006941477363843168,
        0.0011913791917698405,
        0.00017851073338217316,
        2.1846576129087645e-05,
    ),
    types.float64: (
        0.5,
        0.3333333333333333,
        0.125,
        0.033333333333333305,
        0.006944444444444251,
        0.0011904761904764664,
        0.00017361111111271124,
        2.2045855377898063e-05,
        2.480158723703767e-06,
        2.505210868959118e-07,
        2.296444675587549e-08,
        1.9270815607774665e-09,
        1.491027743081845e-10,
        1.0708093352601896e-11,
        7.27473400619901e-13,
        4.476529747185126e-14,
    ),
}

_chi = polynomial_of_type(_COEFFICIENTS)
