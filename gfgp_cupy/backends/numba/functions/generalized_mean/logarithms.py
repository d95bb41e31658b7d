"""Logarithms of vectors (:mod:`...simd`) to base 2 in two parts, and powers made of them.

x = 2^k (1 + t) with √½ <= 1 + t < √2; log₂ x is the whole number k and l = log₂(1 + t), a
polynomial in t. Kept apart, the parts lose nothing where logarithms are subtracted or multiplied.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import types
from numba.extending import overload

from ...compile import INLINED, inlined
from ...near_one import LOG_2, exponent_and_mantissa
from ...powers import (
    constants_of,
    multiply_subtract,
    polynomial,
    polynomial_by_halves,
    times_power_of_two,
)
from ...simd import Vector, call_of, intrinsic, multiply_add, zeros_like

__all__ = [
    "COEFFICIENTS",
    "Logarithm",
    "difference",
    "distance",
    "logarithm",
    "logarithm_and_root",
    "multiple",
    "power",
    "product",
]

# log₂(1 + t) = t q(t) from √½ to √2. The coefficients of q, lowest first, are those whose largest
# relative error is least, found as in powers.py: 2.6e-8 in float32 and 7.7e-18 in float64.
COEFFICIENTS = {
    types.float32: (
        1.4426950036577664,
        -0.721347346773331,
        0.4809106426156691,
        -0.36070368704864697,
        0.28791625453018305,
        -0.23894471861448047,
        0.21571545511260867,
        -0.20727047020542974,
        0.12583836508287738,
    ),
    types.float64: (
        1.4426950408889634,
        -0.7213475204444824,
        0.48089834696298184,
        -0.3606737602218486,
        0.28853900817922035,
        -0.24044917355266035,
        0.20609929145684577,
        -0.1803368742043334,
        0.16029944905540464,
        -0.14426976932192087,
        0.1311543594341373,
        -0.12021769632078376,
        0.11096381736674772,
        -0.10315309732216778,
        0.09645974530163515,
        -0.08935852175898673,
        0.08162447819795539,
        -0.08193114479848354,
        0.09425696500604328,
        -0.0866729115438666,
        0.037742458945643424,
    ),
}


class Logarithm(NamedTuple):
    """k and l."""

    whole: Any
    part: Any


@inlined
def distance(exponent, of_x, of_y):
    """log √(x^exponent / y)."""
    whole = multiply_subtract(exponent, of_x.whole, of_y.whole)
    return multiply_add(exponent, of_x.part, whole - of_y.part) * (0.5 * LOG_2)


@inlined
def difference(of_x, of_y):
    """log √(x / y)."""
    return ((of_x.whole - of_y.whole) + (of_x.part - of_y.part)) * (0.5 * LOG_2)


@inlined
def product(of_x, of_y):
    """The logarithm of x y, whose rest may be as large as 1."""
    return Logarithm(of_x.whole + of_y.whole, of_x.part + of_y.part)


def logarithm(x) -> Any:
    """Of normal x > 0. l is right to 2 units in the last place. Of all else it is some number, or
    NaN."""
    raise NotImplementedError("logarithm is for compiled functions")


# (Numba's declaration lacks these options.)
@overload(logarithm, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _logarithm(x):
    if not isinstance(x, Vector):
        return None
    coefficients = COEFFICIENTS[x.element]

    def implementation(x):
        k, mantissa = exponent_and_mantissa(x)
        t = mantissa - 1.0
        return Logarithm(k, t * polynomial(t, coefficients))

    return implementation


@inlined
def multiple(of_x, exponent):
    """log₂ x^exponent as a whole number and the rest."""
    # (The sum's rounding only lets the rest be a little more than 1/2.)
    n = nearest(exponent * (of_x.whole + of_x.part))
    rest = multiply_subtract(exponent, of_x.whole, n)
    return n, multiply_add(exponent, of_x.part, rest)


@inlined
def power(of_x, exponent):
    """x^exponent by the :func:`logarithm` of x; 0 where that is below the smallest normal number.

    The exponent's product with k is taken exactly and that with l is never large, so the error, of
    about 1 + |exponent| / 2 units in the last place, does not grow with log x.
    """
    n, rest = multiple(of_x, exponent)
    return _power_of_two(rest, n)


def logarithm_and_root(x, exponent, lost) -> Any:
    """The :func:`logarithm` of normal x > 0, and x^(exponent + lost), where ``lost`` is far smaller
    than ``exponent``, which is at most 2 and at least -2.

    There is one of these a window, at whose end all else waits: they take some operations more than
    :func:`power` so that few wait for each other.
    """
    raise NotImplementedError("logarithm_and_root is for compiled functions")


@overload(logarithm_and_root, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _logarithm_and_root(x, exponent, lost):
    if not isinstance(x, Vector):
        return None
    of_logarithm = COEFFICIENTS[x.element]
    first, second = of_logarithm[:2]
    _, of_power, _ = constants_of(x.element)

    def implementation(x, exponent, lost):
        k, mantissa = exponent_and_mantissa(x)
        t = mantissa - 1.0
        # l to 0.03 is enough for a whole number that is the nearest, or nearly.
        about = t * multiply_add(t, zeros_like(t) + second, first)
        n = nearest(multiply_add(exponent, about, exponent * k))
        rest = multiply_add(lost, k, multiply_subtract(exponent, k, n))
        q = polynomial_by_halves(t, of_logarithm)
        f = multiply_add(exponent * t, q, rest)
        power = multiply_add(f, polynomial_by_halves(f, of_power), 1.0)
        return Logarithm(k, t * q), times_power_of_two(power, n)

    return implementation


def _power_of_two(f, n) -> Any:
    raise NotImplementedError("_power_of_two is for compiled functions")


@overload(_power_of_two, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _power_of_two_of(f, n):
    _, coefficients, _ = constants_of(f.element)

    def implementation(f, n):
        return times_power_of_two(multiply_add(f, polynomial(f, coefficients), 1.0), n)

    return implementation


@intrinsic
def nearest(typing_context, vector):
    """The nearest whole numbers."""

    def generate(context, builder, sig, args):
        return call_of(builder, vector, "rint", *args)

    return vector(vector), generate
