"""∂y/∂p where powers are relative to nothing: y / p² times the mean of e log e, where e is an
element's power over the mean of all. (It is how far the weights are from equal ones.)

With z = log e and u = e − 1 that is the mean of e z − u = z u ρ(z), ρ(z) = 1 / (1 − e^−z) − 1 / z,
which is never negative: nothing cancels. It is as exact as z and u are. In windows of elements that
are nearly equal, that is not enough.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import overload

from ...compile import INLINED, inlined
from ...powers import multiply_subtract, polynomial
from ...simd import (
    Vector,
    bits_where_less,
    chosen,
    lanes_within,
    maximum,
    multiply_add,
    zeros_like,
)

__all__ = ["are_equal", "divergence_holds", "part_of_divergence", "sensitivity_by"]

LEAST_DIVERGENCE, OF_SQUARE = 0.75 * 2.0**-10, 2.0**-12
"""Least divergence that holds, and what is added to it times the square of what z's error grows
with."""


@inlined
def part_of_divergence(weight, half):
    """Half of e z − u of an element with e / 2 = ``weight`` and z / 2 = ``half``.

    Of halves, z ρ(z) takes an operation less.
    """
    excess, square = weight - 0.5, half * half
    near = excess * _z_ratio(half, square)
    far = multiply_subtract(weight, half + half, excess)
    return chosen(bits_where_less(square, zeros_like(half) + 0.25), near, far)


@inlined
def divergence_holds(divergence, square):
    """In which lanes it is right to some units in the last place. ``square``: of p, and, where
    logarithms were rounded, of that of the powers' mean added."""
    least = multiply_add(square, zeros_like(square) + OF_SQUARE, LEAST_DIVERGENCE)
    return bits_where_less(least, divergence)


@inlined
def are_equal(least, most, eps):
    """In which lanes the elements are all equal, at least ε: their divergence is 0. (Where a
    network's ReLU comes before, many windows are.)"""
    return lanes_within(maximum(eps, most) - maximum(eps, least), 0.0, 0.0)


@inlined
def sensitivity_by(divergence, output, inverse):
    return output * divergence * inverse * inverse


# z ρ(z) = h + h² r(h²), where h = z / 2, for |z| <= 1. The coefficients of r, lowest first, are
# those with which ρ's largest error is least, found as in powers.py: 2.4e-8 in float32 and 2.3e-19
# in float64.
_COEFFICIENTS = {
    types.float32: (0.33333299025457713, -0.02221115852489968, 0.0020268109689088754),
    types.float64: (
        0.3333333333333333,
        -0.022222222222220697,
        0.002116402116316426,
        -0.0002116402094774396,
        2.1377770176696367e-05,
        -2.16418356958265e-06,
        2.182980963401329e-07,
        -1.996906386535493e-08,
    ),
}


def _z_ratio(half, square) -> Any:
    raise NotImplementedError("_z_ratio is for compiled functions")


# (Numba's declaration lacks these options.)
@overload(_z_ratio, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _z_ratio_of(half, square):
    if not isinstance(half, Vector):
        return None
    coefficients = _COEFFICIENTS[half.element]

    def implementation(half, square):
        return multiply_add(square, polynomial(square, coefficients), half)

    return implementation
