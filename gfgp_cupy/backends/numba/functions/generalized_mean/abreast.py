"""Logarithms and powers of four vectors, step by step for all four at once, so that few operations
wait for each other."""

from __future__ import annotations

from typing import Any

from numba.extending import overload

from ...compile import INLINED, inlined
from ...near_one import exponent_and_mantissa
from ...powers import constants_of, times_power_of_two
from ...simd import in_all_lanes, intrinsic, multiply_add
from .logarithms import COEFFICIENTS, Logarithm, multiple

__all__ = ["logarithms", "powers"]


def logarithms(x) -> Any:
    """As :func:`.logarithms.logarithm`."""
    raise NotImplementedError("logarithms is for compiled functions")


# (Numba's declaration lacks these options.)
@overload(logarithms, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _logarithms(x):
    coefficients = COEFFICIENTS[x.dtype.element]

    def implementation(x):
        k_a, a = exponent_and_mantissa(x[0])
        k_b, b = exponent_and_mantissa(x[1])
        k_c, c = exponent_and_mantissa(x[2])
        k_d, d = exponent_and_mantissa(x[3])
        a, b, c, d = a - 1.0, b - 1.0, c - 1.0, d - 1.0
        q = _polynomials((a, b, c, d), coefficients)
        return (
            Logarithm(k_a, a * q[0]),
            Logarithm(k_b, b * q[1]),
            Logarithm(k_c, c * q[2]),
            Logarithm(k_d, d * q[3]),
        )

    return implementation


def powers(of_x, exponent) -> Any:
    """As :func:`.logarithms.power`, and as :func:`.logarithms.multiple`: the powers' logarithms."""
    raise NotImplementedError("powers is for compiled functions")


@overload(powers, jit_options=INLINED)  # pyright: ignore[reportArgumentType]
def _powers(of_x, exponent):
    _, coefficients, _ = constants_of(exponent.element)

    def implementation(of_x, exponent):
        n_a, a = multiple(of_x[0], exponent)
        n_b, b = multiple(of_x[1], exponent)
        n_c, c = multiple(of_x[2], exponent)
        n_d, d = multiple(of_x[3], exponent)
        q = _polynomials((a, b, c, d), coefficients)
        return (
            _power_of_two(a, q[0], n_a),
            _power_of_two(b, q[1], n_b),
            _power_of_two(c, q[2], n_c),
            _power_of_two(d, q[3], n_d),
        ), (Logarithm(n_a, a), Logarithm(n_b, b), Logarithm(n_c, c), Logarithm(n_d, d))

    return implementation


@inlined
def _power_of_two(f, q, n):
    return times_power_of_two(multiply_add(f, q, 1.0), n)


@intrinsic
def _polynomials(typing_context, x, coefficients):
    """As :func:`.powers.polynomial`, of several vectors."""

    def generate(context, builder, sig, args):
        points, numbers = args
        points = [builder.extract_value(points, i) for i in range(len(x))]
        terms = [
            in_all_lanes(
                builder,
                x.dtype,
                context.cast(builder, builder.extract_value(numbers, i), number, x.dtype.element),
            )
            for i, number in enumerate(coefficients)
        ]
        totals = [terms.pop()] * len(x)
        while terms:
            term = terms.pop()
            products = [
                builder.fmul(total, point, flags=("contract",))
                for total, point in zip(totals, points, strict=True)
            ]
            totals = [builder.fadd(product, term, flags=("contract",)) for product in products]
        return context.make_tuple(builder, sig.return_type, totals)

    return x(x, coefficients), generate
