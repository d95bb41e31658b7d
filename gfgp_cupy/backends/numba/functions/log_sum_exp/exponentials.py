"""e^z of vectors, and what is left of it without 1 and without 1 + z: to the last digits where z is
near 0, too, and without a choice between ways to compute it."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types
from numba.extending import overload

from ...compile import inlined
from ...powers import (
    constants_of,
    multiply_subtract,
    polynomial,
    polynomial_of_type,
    times_power_of_two,
)
from ...simd import LOG2_E, Vector, chosen, lanes_within, multiply_add, zeros_like

__all__ = ["Exponential", "exponential", "power_in_parts"]

STEP = 3
"""Powers of two by which e^z is a multiple of a number near 1, that the range in which it is that
number itself be wide: |z| <= 1.04. Beyond, e^z − 1 − z is no small difference."""

LOG_OF_STEP = 2.0794415416798357
"""Of 2^STEP."""


class Exponential(NamedTuple):
    """e^z.

    Attributes:
        z: its exponent.
        power: e^z.
        less_one: e^z − 1.
        less_line: e^z − 1 − z.
    """

    z: Any
    power: Any
    less_one: Any
    less_line: Any


@inlined
def exponential(theta, d):
    """e^(θ d)."""
    scale, z = theta * (LOG2_E / STEP), theta * d
    n, f = _whole_and_rest(scale, d)
    bend = f * f * _bend_of(f)
    part = multiply_add(f, zeros_like(f) + LOG_OF_STEP, bend)
    factor = times_power_of_two(zeros_like(n) + 1.0, n * float(STEP))
    less_one = multiply_add(part, factor, factor - 1.0)
    less_line = chosen(lanes_within(n, 0.0, 0.0), bend, less_one - z)
    return Exponential(z, multiply_add(part, factor, factor), less_one, less_line)


@inlined
def power_in_parts(scale, x):
    """p and s of 2^(scale · x) = s (1 + p), s a power of two: 1 where the exponent is between
    ±1/2. So the power less 1 is s p + (s − 1), which does not cancel."""
    n, f = _whole_and_rest(scale, x)
    return _part_of(f), times_power_of_two(zeros_like(n) + 1.0, n)


def _whole_and_rest(scale, x) -> Any:
    """The whole number next to scale · x and what is left of that, as exact as in
    :func:`...powers.power_of_two`."""
    raise NotImplementedError("_whole_and_rest is for compiled functions")


@overload(_whole_and_rest)
def _whole_and_rest_of(scale, x):
    if not isinstance(x, Vector):
        return None
    whole_only, _, _ = constants_of(x.element)

    def implementation(scale, x):
        n = multiply_add(scale, x, whole_only) - whole_only
        return n, multiply_subtract(scale, x, n)

    return implementation


def _part_of(f) -> Any:
    """2^f − 1 for |f| <= 1/2."""
    raise NotImplementedError("_part_of is for compiled functions")


@overload(_part_of)
def _part_of_power(f):
    if not isinstance(f, Vector):
        return None
    _, coefficients, _ = constants_of(f.element)

    def implementation(f):
        return f * polynomial(f, coefficients)

    return implementation


# (e^(k f) − 1 − k f) / f² for |f| <= 1/2, where k is LOG_OF_STEP: the polynomial whose largest
# relative error is least, 5.8e-9 and 6.1e-19.
_COEFFICIENTS = {
    types.float32: (
        2.1620385504311095,
        1.49861097612299,
        0.7790700588243513,
        0.32400432873957935,
        0.1122592714836571,
        0.033363155967754285,
        0.008879827011581262,
        0.00201632757014624,
    ),
    types.float64: (
        2.1620385626319063,
        1.4986109339501827,
        0.7790684577179066,
        0.32400546295820537,
        0.11229173656776083,
        0.03335772882973145,
        0.008670680882812355,
        0.0020033526643470924,
        0.00041658547838033884,
        7.875142457216362e-05,
        1.3646563658530169e-05,
        2.18261432706665e-06,
        3.2424074511406506e-07,
        4.561880343318181e-08,
        5.8671471698046364e-09,
    ),
}

_bend_of = polynomial_of_type(_COEFFICIENTS)
