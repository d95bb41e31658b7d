"""Powers of two of vectors (:mod:`.simd`), right to two units in the last place in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import overload

from .simd import Vector, call_of, in_all_lanes, intrinsic, multiply_add

__all__ = [
    "MANTISSA_BITS",
    "constants_of",
    "exp2",
    "has_avx512",
    "multiply_subtract",
    "polynomial",
    "polynomial_by_halves",
    "polynomial_of_type",
    "power_of_two",
    "power_of_two_by_bits",
    "power_of_two_by_scaling",
    "times_power_of_two",
]

# 2^f = 1 + f q(f) for |f| <= 1/2. The coefficients of q, lowest first, are those whose largest
# relative error is least, found by Remez's exchange algorithm in 50-digit arithmetic: 2.6e-9 in
# float32 and 5.7e-20 in float64, far below their unit roundoffs of 6.0e-8 and 1.1e-16.
_COEFFICIENTS = {
    types.float32: (
        0.6931472149680279,
        0.24022652782887737,
        0.05550310551013797,
        0.009617692972993062,
        0.001340664390235176,
        0.00015594678161326619,
    ),
    types.float64: (
        0.6931471805599453,
        0.2402265069591007,
        0.05550410866482173,
        0.009618129107628561,
        0.0013333558146381738,
        0.00015403530393171835,
        1.5252733864845099e-05,
        1.321548700340765e-06,
        1.0178047531180678e-07,
        7.0548148367630283e-09,
        4.4572393137403013e-10,
        2.5855238444590039e-11,
    ),
}

MANTISSA_BITS = {types.float32: 23, types.float64: 52}

_SMALLEST_EXPONENT = {types.float32: -126.0, types.float64: -1022.0}

_PACKED = {types.float32: "ps", types.float64: "pd"}
"""How AVX-512's instructions call the types."""

_CURRENT_ROUNDING = 4
"""AVX-512: to round as other instructions do."""


def constants_of(element: types.Float) -> tuple[float, tuple[float, ...], float]:
    """What rounds to a whole number when it is added, the polynomial's coefficients, and the
    exponent of the smallest normal number."""
    whole_only = 1.5 * 2.0 ** MANTISSA_BITS[element]
    return whole_only, _COEFFICIENTS[element], _SMALLEST_EXPONENT[element]


def exp2(x, halvings) -> Any:
    """2^(x − halvings) for x <= 0 and a small whole number >= 0, and 0 where that is below the
    smallest normal number.

    x = n + f with n whole and |f| <= 1/2, without error: the sum of x and 1.5 · 2^(mantissa bits)
    has no bits left for a fraction, hence is rounded to a whole number, and n is the lowest bits
    of its representation. 2^f is a polynomial, and n is added to its exponent's bits. The result
    is at most 1 unit in the last place from the power of x, whose halvings cost nothing: they
    come off the number that x is added to.
    """
    raise NotImplementedError("exp2 is for compiled functions")


@overload(exp2)
def _exp2(x, halvings):
    if not isinstance(x, Vector):
        return None
    whole_only, coefficients, smallest = constants_of(x.element)

    def implementation(x, halvings):
        origin = whole_only - halvings
        shifted = x + origin
        f = x - (shifted - origin)
        power = 1.0 + f * polynomial(f, coefficients)
        return _zero_where_less(_add_to_exponent(power, shifted), x, smallest + halvings)

    return implementation


def power_of_two(scale, x) -> Any:
    """2^(scale · x). Rounded exponents below that of the smallest normal number give 0.

    As :func:`exp2`, but the fraction of scale · x is as exact as a number below 1/2, however large
    the product: where a processor multiplies and adds at once, nothing is rounded before the whole
    number is subtracted. So all powers have the same relative error. Beyond the largest exponent
    they are infinite; beside it and the smallest the two ways to compute them round differently.
    """
    raise NotImplementedError("power_of_two is for compiled functions")


@overload(power_of_two)
def _power_of_two(scale, x):
    if not isinstance(x, Vector):
        return None
    power = power_of_two_by_scaling if has_avx512() else power_of_two_by_bits

    def implementation(scale, x):
        return power(scale, x)

    return implementation


def has_avx512() -> bool:
    """Whether the processor that functions are compiled for has: this one, unless Numba is told
    otherwise."""
    # (Numba's declaration does not know its own context.)
    context = cpu_target.target_context
    codegen = context.codegen()  # pyright: ignore[reportAttributeAccessIssue]
    _, _, features = codegen.magic_tuple()
    return "+avx512f" in features.split(",")


def power_of_two_by_bits(scale, x) -> Any:
    """:func:`power_of_two` on any processor: the whole number is added to the exponent's bits."""
    raise NotImplementedError("power_of_two_by_bits is for compiled functions")


@overload(power_of_two_by_bits)
def _power_of_two_by_bits(scale, x):
    if not isinstance(x, Vector):
        return None
    whole_only, coefficients, smallest = constants_of(x.element)

    def implementation(scale, x):
        shifted = multiply_add(scale, x, whole_only)
        f = multiply_add(scale, x, whole_only - shifted)
        power = 1.0 + f * polynomial(f, coefficients)
        return _within_exponents(
            _add_to_exponent(power, shifted), shifted, whole_only + smallest, whole_only - smallest
        )

    return implementation


def power_of_two_by_scaling(scale, x) -> Any:
    """:func:`power_of_two` by an instruction of AVX-512."""
    raise NotImplementedError("power_of_two_by_scaling is for compiled functions")


@overload(power_of_two_by_scaling)
def _power_of_two_by_scaling(scale, x):
    if not isinstance(x, Vector):
        return None
    whole_only, coefficients, smallest = constants_of(x.element)

    def implementation(scale, x):
        n = multiply_add(scale, x, whole_only) - whole_only
        f = multiply_subtract(scale, x, n)
        power = 1.0 + f * polynomial(f, coefficients)
        return _scaled(power, n, smallest)

    return implementation


def times_power_of_two(x, n) -> Any:
    """x · 2^n for x near 1 and whole n below half the mantissa's units; 0 where n is less than the
    smallest normal number's exponent, infinity where it is more than the largest."""
    raise NotImplementedError("times_power_of_two is for compiled functions")


@overload(times_power_of_two)
def _times_power_of_two(x, n):
    if not isinstance(x, Vector):
        return None
    whole_only, _, smallest = constants_of(x.element)
    if has_avx512():

        def implementation(x, n):
            return _scaled(x, n, smallest)
    else:

        def implementation(x, n):
            shifted = n + whole_only
            return _within_exponents(
                _add_to_exponent(x, shifted), shifted, whole_only + smallest, whole_only - smallest
            )

    return implementation


@intrinsic
def multiply_subtract(typing_context, a, b, c):
    """a · b − c, rounded once where that takes one instruction."""

    def generate(context, builder, sig, args):
        a, b, c = args
        return call_of(builder, sig.return_type, "fmuladd", a, b, builder.fneg(c))

    return a(a, a, a), generate


@intrinsic
def _scaled(typing_context, x, n, limit):
    """x · 2^n for whole numbers n, infinity where that is too large; 0 where n is less than the
    number ``limit``. One instruction of AVX-512."""

    def generate(context, builder, sig, args):
        x, n, limit = args
        vector = sig.return_type
        bits = ir.IntType(vector.lanes)
        kept = builder.fcmp_unordered(">=", n, in_all_lanes(builder, vector, limit))
        scale = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(x.type, [x.type, x.type, x.type, bits, ir.IntType(32)]),
            f"llvm.x86.avx512.mask.scalef.{_PACKED[vector.element]}.512",
        )
        rounding = ir.Constant(ir.IntType(32), _CURRENT_ROUNDING)
        zero = ir.Constant(x.type, None)
        return builder.call(scale, [x, n, zero, builder.bitcast(kept, bits), rounding])

    return x(x, x, x.element), generate


@intrinsic
def _within_exponents(typing_context, value, shifted, least, most):
    """``value``, but 0 where ``shifted`` is less than ``least``, infinity where it is greater than
    ``most``."""

    def generate(context, builder, sig, args):
        value, shifted, least, most = args
        low, high = (in_all_lanes(builder, sig.return_type, limit) for limit in (least, most))
        zero = ir.Constant(value.type, None)
        infinity = ir.Constant(value.type, [float("inf")] * sig.return_type.lanes)
        value = builder.select(builder.fcmp_ordered("<", shifted, low), zero, value)
        return builder.select(builder.fcmp_ordered(">", shifted, high), infinity, value)

    element = value.element
    return value(value, value, element, element), generate


def _in_lanes(context, builder, vector: Vector, kinds, numbers):
    """The vectors, of one type, of each number in every lane."""
    return [
        in_all_lanes(
            builder,
            vector,
            context.cast(builder, builder.extract_value(numbers, i), kind, vector.element),
        )
        for i, kind in enumerate(kinds)
    ]


@intrinsic
def polynomial(typing_context, x, coefficients):
    """The polynomial with these coefficients, numbers of which the first is the constant one."""

    def generate(context, builder, sig, args):
        point, numbers = args
        terms = _in_lanes(context, builder, x, coefficients, numbers)
        total = terms.pop()
        while terms:
            product = builder.fmul(total, point, flags=("contract",))
            total = builder.fadd(product, terms.pop(), flags=("contract",))
        return total

    return x(x, coefficients), generate


@intrinsic
def polynomial_by_halves(typing_context, x, coefficients):
    """:func:`polynomial` by Estrin's scheme: a few operations more, in a chain of dependences that
    is as long as the number of coefficients has digits. For a polynomial that waits alone."""

    def generate(context, builder, sig, args):
        power, numbers = args
        terms = _in_lanes(context, builder, x, coefficients, numbers)
        while len(terms) > 1:
            joined = []
            for low, high in zip(terms[::2], terms[1::2], strict=False):
                product = builder.fmul(high, power, flags=("contract",))
                joined.append(builder.fadd(product, low, flags=("contract",)))
            if len(terms) % 2:
                joined.append(terms[-1])
            power, terms = builder.fmul(power, power), joined
        return terms[0]

    return x(x, coefficients), generate


def polynomial_of_type(
    coefficients: dict[types.Float, tuple[float, ...]],
) -> Callable[[Any], Any]:
    """:func:`polynomial` with the coefficients for the type of its argument's elements."""

    def of_vector(x) -> Any:
        raise NotImplementedError("a polynomial of a type is for compiled functions")

    @overload(of_vector)
    def _of_vector(x):
        if not isinstance(x, Vector):
            return None
        of_element = coefficients[x.element]

        def implementation(x):
            return polynomial(x, of_element)

        return implementation

    return of_vector


@intrinsic
def _add_to_exponent(typing_context, x, shifted):
    """x · 2^n, n the whole number in the lowest bits of ``shifted``."""

    def generate(context, builder, sig, args):
        width = x.element.bitwidth
        integers = ir.VectorType(ir.IntType(width), x.lanes)
        bits, n = (builder.bitcast(arg, integers) for arg in args)
        places = ir.Constant(integers, [MANTISSA_BITS[x.element]] * x.lanes)
        return builder.bitcast(builder.add(bits, builder.shl(n, places)), args[0].type)

    return x(x, x), generate


@intrinsic
def _zero_where_less(typing_context, value, x, limit):
    """``value``, but 0 in the lanes where ``x`` is less than the number ``limit``."""

    def generate(context, builder, sig, args):
        value, x, limit = args
        less = builder.fcmp_ordered("<", x, in_all_lanes(builder, sig.return_type, limit))
        return builder.select(less, ir.Constant(value.type, None), value)

    return value(value, x, value.element), generate
