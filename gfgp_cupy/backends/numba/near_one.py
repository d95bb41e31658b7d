"""Logarithms of vectors (:mod:`.simd`) and powers less 1, both right where they are near 0, too."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import overload

from .compile import inlined
from .powers import (
    MANTISSA_BITS,
    constants_of,
    has_avx512,
    multiply_subtract,
    polynomial,
    polynomial_by_halves,
    power_of_two,
)
from .simd import Vector, bits_where_less, chosen, intrinsic, multiply_add, zeros_like

__all__ = ["exponent_and_mantissa", "log", "log_by_halves", "power_less_one"]

# log(1 + t) = t + t² q(t) from √½ to √2. The coefficients of q, lowest first, are those of the
# polynomial for log(1 + t) / t whose largest relative error is least, found as in powers.py:
# 4.1e-9 in float32 and 1.3e-18 in float64.
_COEFFICIENTS = {
    types.float32: (
        -0.49999988291314573,
        0.33333325986760254,
        -0.25001586442207113,
        0.20001968831131137,
        -0.16609015055227955,
        0.1418183005335055,
        -0.13243441307487472,
        0.1290468671804169,
        -0.07621193254607804,
    ),
    types.float64: (
        -0.5,
        0.3333333333333356,
        -0.24999999999997705,
        0.19999999999923415,
        -0.16666666667044427,
        0.14285714295922228,
        -0.12499999975866695,
        0.1111111041417739,
        -0.10000000509673002,
        0.0909093642030229,
        -0.08333345618857696,
        0.07691664445080477,
        -0.0714195754356212,
        0.06675648631002254,
        -0.06270604691110337,
        0.0581520822592054,
        -0.05320510992709296,
        0.05419846166812176,
        -0.0629404049228371,
        0.05707052856589523,
        -0.024237815497009825,
    ),
}

_BITS_OF_ROOT_OF_HALF = {types.float32: 0x3F3504F3, types.float64: 0x3FE6A09E667F3BCC}

LOG_2 = 0.6931471805599453


def log(x, excess) -> Any:
    """The natural logarithm of ``x``, right to 2 units in the last place where it is not below the
    smallest normal number.

    ``excess`` is x − 1, which may be known better than x where that is near 1.

    x = 2^k (1 + t) with √½ <= 1 + t < √2; then log x = k log 2 + log(1 + t), where the second is a
    polynomial in t. Of NaN, infinity and what is not positive it is some number, or NaN.
    """
    raise NotImplementedError("log is for compiled functions")


@overload(log)
def _log(x, excess):
    if not isinstance(x, Vector):
        return None
    coefficients = _COEFFICIENTS[x.element]

    def implementation(x, excess):
        k, t = _exponent_and_excess(x, excess)
        return multiply_add(
            k, zeros_like(k) + LOG_2, multiply_add(t * t, polynomial(t, coefficients), t)
        )

    return implementation


def log_by_halves(x, excess) -> Any:
    """:func:`log`, sooner, with a few operations more: where nothing else is left to be computed
    meanwhile."""
    raise NotImplementedError("log_by_halves is for compiled functions")


@overload(log_by_halves)
def _log_by_halves(x, excess):
    if not isinstance(x, Vector):
        return None
    coefficients = _COEFFICIENTS[x.element]

    def implementation(x, excess):
        k, t = _exponent_and_excess(x, excess)
        return multiply_add(
            k, zeros_like(k) + LOG_2, multiply_add(t * t, polynomial_by_halves(t, coefficients), t)
        )

    return implementation


def power_less_one(scale, x) -> Any:
    """2^(scale · x) − 1, right to 4 units in the last place where it is near 0, too, and to 5
    everywhere.

    :func:`.powers.power_of_two` is 2^n (1 + f q(f)), and this is f q(f) where n is 0.
    """
    raise NotImplementedError("power_less_one is for compiled functions")


@overload(power_less_one)
def _power_less_one(scale, x):
    if not isinstance(x, Vector):
        return None
    whole_only, coefficients, _ = constants_of(x.element)

    # In the words of powers.py, so that the compiler sees what is computed for the power, too.
    if has_avx512():

        def implementation(scale, x):
            n = multiply_add(scale, x, whole_only) - whole_only
            f = multiply_subtract(scale, x, n)
            power = power_of_two(scale, x)
            return _excess_of(power, n, f * polynomial(f, coefficients))
    else:

        def implementation(scale, x):
            shifted = multiply_add(scale, x, whole_only)
            f = multiply_add(scale, x, whole_only - shifted)
            power = power_of_two(scale, x)
            return _excess_of(power, shifted - whole_only, f * polynomial(f, coefficients))

    return implementation


@inlined
def _excess_of(power, n, part):
    return chosen(bits_where_less(n * n, zeros_like(n) + 0.5), part, power - 1.0)


@intrinsic
def exponent_and_mantissa(typing_context, x):
    """k and m of x = 2^k m with √½ <= m < √2."""

    def generate(context, builder, sig, args):
        exponent, mantissa = _parts_of(builder, x, args[0])
        k = builder.sitofp(exponent, mantissa.type)
        return context.make_tuple(builder, sig.return_type, (k, mantissa))

    return types.UniTuple(x, 2)(x), generate


@intrinsic
def _exponent_and_excess(typing_context, x, excess):
    """k and t of x = 2^k (1 + t); where k is 0, t is ``excess``."""

    def generate(context, builder, sig, args):
        value, near = args
        exponent, mantissa = _parts_of(builder, x, value)
        k = builder.sitofp(exponent, value.type)
        t = builder.fsub(mantissa, ir.Constant(value.type, [1.0] * x.lanes))
        t = builder.select(
            builder.icmp_signed("==", exponent, ir.Constant(exponent.type, None)), near, t
        )
        return context.make_tuple(builder, sig.return_type, (k, t))

    return types.UniTuple(x, 2)(x, x), generate


def _parts_of(builder, vector: Vector, value):
    """The exponent, as an integer, and the mantissa."""
    integers = ir.VectorType(ir.IntType(vector.element.bitwidth), vector.lanes)

    def all_lanes(number):
        return ir.Constant(integers, [number] * vector.lanes)

    bits, places = builder.bitcast(value, integers), all_lanes(MANTISSA_BITS[vector.element])
    above = builder.sub(bits, all_lanes(_BITS_OF_ROOT_OF_HALF[vector.element]))
    exponent = builder.ashr(above, places)
    mantissa = builder.sub(bits, builder.shl(exponent, places))
    return exponent, builder.bitcast(mantissa, value.type)
