"""Floating-point arithmetic and conversions."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

import numpy as np

from .actions import Action, computed, instruction
from .memory import access_bytes
from .operands import floats, integers, predicate
from .predicates import COMPARISONS, two_predicates

U32, I32, I64, F32, F64 = np.uint32, np.int32, np.int64, np.float32, np.float64

SCALES = {"M2": 2.0, "M4": 4.0, "M8": 8.0, "D2": 0.5, "D4": 0.25, "D8": 0.125}
"""What a product is multiplied by besides, by FMUL's modifier."""

SPECIAL_FUNCTIONS = {
    "EX2": np.exp2, "LG2": np.log2, "SQRT": np.sqrt,
    "RCP": lambda x: 1 / x, "RSQ": lambda x: 1 / np.sqrt(x),
}  # fmt: skip
"""MUFU's, by its modifier. A GPU's are rounded otherwise, within what PTX promises."""


LEAST_NORMAL = np.finfo(F32).tiny


def _float_operation(one, compute, count) -> Action:
    target, *texts = one.operands
    sources = [_as_taken(one, text) for text in texts[:count]]
    flushed = _flushed if _flushes(one) else lambda value: value

    def act(warps):
        with np.errstate(all="ignore"):
            result = compute(*(source(warps) for source in sources)).astype(F32)
            return flushed(result).view(U32)

    return computed(one, target, act)


def _flushes(one) -> bool:
    """Whether it takes numbers below 2⁻¹²⁶ for 0, and gives 0 in their place."""
    return "FTZ" in one.modifiers or one.name == "MUFU"


def _as_taken(one, text: str) -> Callable:
    """An operand's float32 as the instruction takes it."""
    source = floats(text)
    return (lambda warps: _flushed(source(warps))) if _flushes(one) else source


def _flushed(value):
    return np.where(np.abs(value) < LEAST_NORMAL, np.copysign(F32(0), value), value)


@instruction("FADD")
def _float_add(one):
    return _float_operation(one, operator.add, 2)


@instruction("FMUL")
def _float_multiply(one):
    unknown = set(one.modifiers) - {"FTZ", *SCALES}
    if unknown:
        raise ValueError(f"no such modifier of {one.name}: {one}")
    scale = next((F32(SCALES[word]) for word in one.modifiers if word in SCALES), F32(1))
    return _float_operation(one, lambda a, b: a * b * scale, 2)


@instruction("FFMA")
def _float_multiply_add(one):
    return _float_operation(one, lambda a, b, c: a.astype(F64) * b + c, 3)


@instruction("FMNMX", "FMNMX3")
def _float_minimum(one):
    count = 3 if one.name == "FMNMX3" else 2
    least = predicate(one.operands[-1])
    if "NAN" in one.modifiers:
        lower, upper = np.minimum, np.maximum
    else:
        lower, upper = np.fmin, np.fmax
    target, *texts = one.operands
    sources = [_as_taken(one, text) for text in texts[:count]]

    def compute(warps):
        values = [source(warps) for source in sources]
        low, high = values[0], values[0]
        with np.errstate(all="ignore"):
            for value in values[1:]:
                low, high = lower(low, value), upper(high, value)
        return np.where(least(warps), low, high).view(U32)

    return computed(one, target, compute)


@instruction("FSEL")
def _float_select(one):
    target, a, b, chosen = one.operands
    a, b, chosen = floats(a), floats(b), predicate(chosen)
    return computed(
        one, target, lambda warps: np.where(chosen(warps), a(warps), b(warps)).view(U32)
    )


@instruction("FSETP")
def _float_compare(one):
    comparison, *rest = one.modifiers
    first, second, a, b, joined = one.operands
    result = _comparison(comparison, _as_taken(one, a), _as_taken(one, b))
    return two_predicates(one, first, second, result, predicate(joined), rest)


@instruction("FSET")
def _float_compare_to_number(one):
    form, comparison, *rest = one.modifiers
    target, a, b, joined = one.operands
    result = _comparison(comparison, _as_taken(one, a), _as_taken(one, b))
    joined = predicate(joined)
    if form != "BF" or "AND" not in rest:
        raise RuntimeError(f"instruction not known: {one}")
    return computed(
        one, target, lambda warps: (result(warps) & joined(warps)).astype(F32).view(U32)
    )


def _comparison(comparison: str, a: Callable, b: Callable) -> Callable:
    def result(warps):
        left, right = a(warps), b(warps)
        with np.errstate(all="ignore"):
            unordered = np.isnan(left) | np.isnan(right)
            if comparison == "NAN":
                return unordered
            if comparison == "NUM":
                return ~unordered
            if comparison.endswith("U"):
                return COMPARISONS[comparison[:2]](left, right) | unordered
            return COMPARISONS[comparison](left, right) & ~unordered

    return result


@instruction("MUFU")
def _special_function(one):
    return _float_operation(one, SPECIAL_FUNCTIONS[one.modifiers[0]], 1)


@instruction("FRND")
def _round(one):
    functions = {"FLOOR": np.floor, "CEIL": np.ceil, "TRUNC": np.trunc}
    kind = next((word for word in one.modifiers if word in functions), None)
    return _float_operation(one, np.rint if kind is None else functions[kind], 1)


@instruction("HADD2")
def _half_add(one):
    if "F32" not in one.modifiers:
        return _packed(one, operator.add, 2)
    return _float_operation(one, operator.add, 2)


@instruction("HMUL2")
def _half_multiply(one):
    return _packed(one, operator.mul, 2)


@instruction("HFMA2")
def _half_multiply_add(one):
    if one.operands[1:3] == ("-RZ", "RZ") and not one.operands[3].startswith(("R", "UR", "c")):
        high, low = map(_half_bits, one.operands[3:])
        constant = np.array([[high << 16 | low]], U32)
        return computed(one, one.operands[0], lambda warps: constant)
    return _packed(one, lambda a, b, c: a.astype(F64) * b + c, 3)


def _half_bits(text: str) -> int:
    if "QNAN" in text:  # whose digits are not listed: all ones, as the compiler makes them
        return 0xFFFF if text[0] == "-" else 0x7FFF
    return int(np.float16(float(text)).view(np.uint16))


def _packed(one, compute, count) -> Action:
    """An operation on two halves at once."""
    target, *texts = one.operands
    bfloat16 = any("BF16" in word for word in one.modifiers)
    halves, at = [], 0
    for _ in range(count):
        if re.fullmatch(r"[-+]?(\d.*|INF|QNAN)", texts[at]) and not texts[at].startswith("0x"):
            pair, at = texts[at : at + 2], at + 2  # the upper half first
            numbers = [np.array([[float(text.replace("QNAN", "nan"))]], F32) for text in pair]
            halves.append((lambda n: lambda warps: (n[1], n[0]))(numbers))
        else:
            halves.append(_two_halves(texts[at], bfloat16))
            at += 1

    def act(warps):
        pairs = [source(warps) for source in halves]
        words = []
        with np.errstate(all="ignore"):
            for i in range(2):
                result = compute(*(pair[i] for pair in pairs)).astype(F32)
                words.append(_narrowed(result, bfloat16))
        return words[0] | words[1] << U32(16)

    return computed(one, target, act)


def _two_halves(text: str, bfloat16: bool) -> Callable:
    match = re.fullmatch(
        r"(-?)(\|?)([\w\[\]]+)\|?(?:\.reuse)?(?:\.(H0_H0|H1_H1))?\|?(?:\.reuse)?", text
    )
    if match is None:
        raise ValueError(f"operand {text!r} is not understood")
    word, negative, absolute, chosen = integers(match[3]), match[1], match[2], match[4]

    def read(warps):
        bits = word(warps)
        pair = [_widened(bits & U32(0xFFFF), bfloat16), _widened(bits >> U32(16), bfloat16)]
        if absolute:
            pair = [np.abs(half) for half in pair]
        if negative:
            pair = [-half for half in pair]
        if chosen:
            pair = [pair[chosen == "H1_H1"]] * 2
        return pair

    return read


def _widened(bits, bfloat16: bool):
    if bfloat16:
        return (bits << U32(16)).view(F32)
    return bits.astype(np.uint16).view(np.float16).astype(F32)


def _narrowed(value, bfloat16: bool):
    """float32 to the bits of a half type, to nearest, ties to even."""
    if not bfloat16:
        with np.errstate(all="ignore"):
            return value.astype(np.float16).view(np.uint16).astype(U32)
    bits = value.view(U32)
    rounded = (bits + U32(0x7FFF) + (bits >> U32(16) & U32(1))) >> U32(16)
    return np.where(np.isnan(value), U32(0x7FFF), rounded)


@instruction("F2FP")
def _pack_halves(one):
    if "PACK_AB" not in one.modifiers:
        raise ValueError("not PACK_AB")
    target, *texts = one.operands
    a, b = floats(texts[0]), floats(texts[1])
    bfloat16 = "BF16" in one.modifiers
    return computed(
        one,
        target,
        lambda warps: _narrowed(b(warps), bfloat16) | _narrowed(a(warps), bfloat16) << U32(16),
    )


@instruction("I2F", "I2FP", "UI2F", "UI2FP")
def _integer_to_float(one):
    target, text = one.operands
    match = re.fullmatch(r"(.*?)(?:\.(H1|H0|B[0-3]))?", text)
    source, part = integers(match[1]), match[2]
    shift = U32({"H1": 16, "B1": 8, "B2": 16, "B3": 24}.get(part, 0))
    bits = next((8 * access_bytes((word,)) for word in one.modifiers if word in ("U16", "U8")), 32)
    signed = bits == 32 and "U32" not in one.modifiers

    def convert(warps):
        value = source(warps) >> shift
        if bits < 32:
            value = value & U32(2**bits - 1)
        return (value.view(I32) if signed else value).astype(F32).view(U32)

    return computed(one, target, convert)


@instruction("F2I", "F2IP")
def _float_to_integer(one):
    target, text = one.operands
    if "TRUNC" not in one.modifiers:
        raise ValueError("not TRUNC")
    source, unsigned = floats(text), "U32" in one.modifiers
    least, most = (0, 2**32 - 1) if unsigned else (-(2**31), 2**31 - 1)

    def convert(warps):
        with np.errstate(all="ignore"):
            value = np.nan_to_num(np.trunc(source(warps).astype(F64)), nan=0.0)
            return np.clip(value, least, most).astype(I64).astype(U32)

    return computed(one, target, convert)
