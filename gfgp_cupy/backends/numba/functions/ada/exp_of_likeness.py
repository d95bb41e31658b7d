"""Weights e^s for numbers s between −1 and 1, by a polynomial."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import overload

from ...powers import polynomial
from ...simd import Vector

__all__ = ["exp_of_likeness"]

# e^(s/2) is this polynomial over its value at 0, of which weights need not know; e^s is its square.
# The coefficients, lowest first, are those whose largest relative error is least where the
# polynomial is exact at 0, found as in powers.py: 3.9e-8 in float32 and 7.9e-18 in float64, below
# their unit roundoffs of 6.0e-8 and 1.1e-16. The highest is 1, which saves an instruction.
_COEFFICIENTS = {
    types.float32: (
        44854.930100166406,
        22427.476559625036,
        5606.871301172183,
        934.397569054191,
        116.78442086167836,
        11.820286864649322,
        1.0,
    ),
    types.float64: (
        1932427188664.9636,
        966213594332.4816,
        241553398583.1204,
        40258899763.85836,
        5032362470.483646,
        503236247.0114679,
        41936353.908593185,
        2995453.967890273,
        187215.89594332065,
        10400.701872881265,
        520.0103548646496,
        23.771380060882315,
        1.0,
    ),
}


def exp_of_likeness(s) -> Any:
    """e^s times a number that is the same for all s, about 2^31 in float32 and 2^82 in float64, for
    a vector of numbers between −1 and 1; right to 3 units in the last place."""
    raise NotImplementedError("exp_of_likeness is for compiled functions")


@overload(exp_of_likeness)
def _exp_of_likeness(s):
    if not isinstance(s, Vector):
        return None
    coefficients = _COEFFICIENTS[s.element]

    def implementation(s):
        root = polynomial(s, coefficients)
        return root * root

    return implementation
