"""e^s for numbers s between −1 and 1, by a polynomial."""

from __future__ import annotations

from numba import types
from numba.extending import overload

from ..powers import polynomial
from ..simd import Vector

__all__ = ["exp_of_likeness"]

# e^s = 1 + s q(s). The coefficients of q, lowest first, are those that are exact where s is a zero
# of the Chebyshev polynomial of their number; e^s is then right to 2.7e-9 of itself in float32 and
# 3.0e-17 in float64, below their unit roundoffs of 6.0e-8 and 1.1e-16.
_COEFFICIENTS = {
    types.float32: (
        1.0,
        0.49999999014537333,
        0.16666666577313438,
        0.0416667979873811,
        0.00833334524139073,
        0.0013884168571733893,
        0.00019836988492303372,
        2.542872205559196e-05,
        2.8126444348705754e-06,
    ),
    types.float64: (
        1.0,
        0.5,
        0.16666666666666669,
        0.041666666666666664,
        0.0083333333333331,
        0.001388888888888876,
        0.00019841269841456446,
        2.4801587301690853e-05,
        2.7557319150704892e-06,
        2.755731918331876e-07,
        2.5052124008953335e-08,
        2.0876765658642154e-09,
        1.6057199454179518e-10,
        1.1469721885352242e-11,
        7.760406418336239e-13,
        4.842346201844238e-14,
    ),
}


def exp_of_likeness(s):
    """e^s for a vector of numbers between −1 and 1."""
    raise NotImplementedError("exp_of_likeness is for compiled functions")


@overload(exp_of_likeness)
def _exp_of_likeness(s):
    if not isinstance(s, Vector):
        return None
    coefficients = _COEFFICIENTS[s.element]

    def implementation(s):
        return 1.0 + s * polynomial(s, coefficients)

    return implementation
