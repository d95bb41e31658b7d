"""∂y/∂p where powers are relative to nothing: y / p² times the mean of e log e, where e is an
element's power over the mean of all. (It is how far the weights are from equal ones.)

With z = log e and u = e − 1 that is the mean of e z − u = z u ρ(z), ρ(z) = 1 / (1 − e^−z) − 1 / z,
which is never negative: nothing cancels. It is as exact as z and u are. In windows of elements that
are nearly equal, that is not enough.
"""

from __future__ import annotations

from numba import types
from numba.extending import overload

from ...compile import INLINED, inlined
from ...powers import multiply_subtract, polynomial
from ...simd import Vector, bits_where_less, chosen, multiply_add, zeros_like

__all__ = ["divergence_holds", "part_of_divergence", "sensitivity_by"]

LEAST_DIVERGENCE, OF_SQUARE = 2.0**-10, 2.0**-12
"""Least divergence that holds, and what is added to it times the square of what z's error grows
with."""


@inlined
def part_of_divergence(weight, z):
    """e z − u of an element with e = ``weight``."""
    excess, square = weight - 1.0, z * z
    near = z * excess * _ratio(z, square)
    far = multiply_subtract(weight, z, excess)
    return chosen(bits_where_less(square, zeros_like(z) + 1.0), near, far)


@inlined
def divergence_holds(divergence, square):
    """In which lanes it is right to some units in the last place. ``square``: of p, and, where
    logarithms were rounded, of that of the powers' mean added."""
    least = multiply_add(square, zeros_like(square) + OF_SQUARE, LEAST_DIVERGENCE)
    return bits_where_less(least, divergence)


@inlined
def sensitivity_by(divergence, output, inverse):
    return output * divergence * inverse * inverse


# ρ(z) = 1/2 + z r(z²) for |z| <= 1. The coefficients of r, lowest first, are those with which ρ's
# largest error is least, found as in powers.py: 2.4e-8 in float32 and 2.3e-19 in float64.
_COEFFICIENTS = {
    types.float32: (0.08333324756364428, -0.00138819740780623, 3.166892138920118e-05),
    types.float64: (
        0.08333333333333333,
        -0.0013888888888887935,
        3.3068783067444156e-05,
        -8.267195682712484e-07,
        2.0876728688180046e-08,
        -5.283651292926391e-10,
        1.3323858419197565e-11,
        -3.047037332970418e-13,
    ),
}


def _ratio(z, square):
    raise NotImplementedError("_ratio is for compiled functions")


# (Numba's declaration lacks these options.)
@overload(_ratio, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _ratio_of(z, square):
    if not isinstance(z, Vector):
        return None
    coefficients = _COEFFICIENTS[z.element]

    def implementation(z, square):
        return multiply_add(z, polynomial(square, coefficients), 0.5)

    return implementation
