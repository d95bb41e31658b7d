"""Integer arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .actions import Action, computed, instruction, mask_of, next_register, parts_of, writer
from .operands import integers, is_predicate, predicate, wide_integers

U32, U64, I32, I64 = np.uint32, np.uint64, np.int32, np.int64
LOW, WORD = np.uint64(0xFFFFFFFF), np.uint64(32)


@instruction("IADD3", "UIADD3", "IADD", "UIADD")
def _add(one):
    carries, target, operands = parts_of(one)
    sources = [_addend(text) for text in operands[:3] if not is_predicate(text)]
    carried = [predicate(text) for text in operands if is_predicate(text)]

    def add(warps):
        total = sum((source(warps) for source in sources[1:]), start=sources[0](warps))
        for carry in carried:
            total = total + carry(warps)
        return total

    write, mask = writer(target), mask_of(one, target)
    outs = [writer(text) for text in carries]

    def act(warps):
        where, total = mask(warps), add(warps)
        write(warps, (total & LOW).astype(U32), where)
        for i, out in enumerate(outs):
            out(warps, (total >> WORD) > U64(i), where)

    return act


def _addend(text: str) -> Callable:
    """32 bits in 64; what is subtracted is 2^32 minus it, so that a carry says: none borrowed."""
    if text.startswith("-") and not text.startswith("-0x"):
        source = integers(text[1:])
        return lambda warps: U64(1 << 32) - source(warps).astype(U64)
    source = integers(text)
    return lambda warps: source(warps).astype(U64)


@instruction("VIADD", "UVIADD")
def _add_two(one):
    target, *texts = one.operands
    a, b = map(integers, texts)
    return computed(one, target, lambda warps: a(warps) + b(warps))


@instruction("IMAD", "UIMAD")
def _multiply_add(one):
    carries, target, operands = parts_of(one)
    kinds = set(one.modifiers)
    if kinds & {"WIDE", "HI"}:
        return _wide_multiply_add(one, carries, target, operands)
    a, b, c = map(integers, operands[:3])
    carry = predicate(operands[3]) if "X" in kinds else None

    def low(warps):
        value = a(warps) * b(warps) + c(warps)
        return value if carry is None else value + carry(warps).astype(U32)

    return computed(one, target, low)


def _wide_multiply_add(one, carries: list[str], target: str, operands: list[str]) -> Action:
    """Of the product of two words and a double word, all or the upper half."""
    a, b = (_factor(text, signed="U32" not in one.modifiers) for text in operands[:2])
    c = wide_integers(operands[2])
    carry = predicate(operands[3]) if "X" in one.modifiers else None
    whole = "WIDE" in one.modifiers
    low = writer(target)
    high = writer(next_register(target, 1)) if whole else low
    outs, mask = [writer(text) for text in carries], mask_of(one, target)

    def act(warps):
        product = (a(warps) * b(warps)).view(U64)
        total = product + c(warps)
        carried = total < product
        if carry is not None:
            before, total = total, total + carry(warps)
            carried = carried | (total < before)
        where = mask(warps)
        if whole:
            low(warps, (total & LOW).astype(U32), where)
        high(warps, (total >> WORD).astype(U32), where)
        for out in outs:
            out(warps, carried, where)

    return act


def _factor(text: str, signed: bool) -> Callable:
    source = integers(text)
    if signed:
        return lambda warps: source(warps).view(I32).astype(I64)
    return lambda warps: source(warps).astype(U64)


@instruction("LEA", "ULEA")
def _shift_add(one):
    carries, target, operands = parts_of(one)
    kinds = set(one.modifiers)
    carry = predicate(operands.pop()) if "X" in kinds else None
    shift = U64(int(operands.pop(), 16))
    a, b = integers(operands[0]), integers(operands[1])
    if "SX32" in kinds:
        whole = lambda warps: a(warps).view(I32).astype(I64).view(U64)  # noqa: E731
    elif "HI" in kinds:
        high = integers(operands[2])
        whole = lambda warps: high(warps).astype(U64) << WORD | a(warps)  # noqa: E731
    else:
        whole = lambda warps: a(warps).astype(U64)  # noqa: E731
    write, mask = writer(target), mask_of(one, target)
    outs = [writer(text) for text in carries]

    def act(warps):
        shifted = whole(warps) << shift
        part = shifted >> WORD if "HI" in kinds else shifted & LOW
        total = part + b(warps).astype(U64)
        if carry is not None:
            total = total + carry(warps)
        where = mask(warps)
        write(warps, (total & LOW).astype(U32), where)
        for i, out in enumerate(outs):
            out(warps, (total >> WORD) > U64(i), where)

    return act


@instruction("SHF", "USHF")
def _shift(one):
    target, low_text, shift_text, high_text = one.operands
    low, shift, high = integers(low_text), integers(shift_text), integers(high_text)
    kinds = set(one.modifiers)
    most = U32(32 if kinds & {"U32", "S32"} else 63)
    wraps = "W" in kinds
    arithmetic = bool(kinds & {"S32", "S64"})

    def shifted(warps):
        whole = high(warps).astype(U64) << WORD | low(warps)
        by = shift(warps)
        by = (by & U32(31 if most == 32 else 63) if wraps else np.minimum(by, most)).astype(U64)
        if "L" in kinds:
            whole = whole << by
        elif arithmetic:
            whole = (whole.view(I64) >> by.view(I64)).view(U64)
        else:
            whole = whole >> by
        return (whole >> WORD if "HI" in kinds else whole & LOW).astype(U32)

    return computed(one, target, shifted)


@instruction("SEL", "USEL")
def _select(one):
    target, a, b, chosen = one.operands
    a, b, chosen = integers(a), integers(b), predicate(chosen)
    return computed(one, target, lambda warps: np.where(chosen(warps), a(warps), b(warps)))


@instruction("IMNMX", "VIMNMX", "UIMNMX", "UVIMNMX")
def _smaller(one):
    _, target, (a, b, least) = _split_minimum(one)
    return _minimum(one, target, (integers(a), integers(b)), least)


@instruction("VIMNMX3", "UVIMNMX3")
def _smallest(one):
    _, target, (a, b, c, least) = _split_minimum(one)
    return _minimum(one, target, tuple(map(integers, (a, b, c))), least)


@instruction("VIADDMNMX")
def _sum_or_other(one):
    _, target, (a, b, c, least) = _split_minimum(one)
    a, b = integers(a), integers(b)
    return _minimum(one, target, (lambda warps: a(warps) + b(warps), integers(c)), least)


def _split_minimum(one) -> tuple[list[str], str, list[str]]:
    predicates, target, operands = parts_of(one)
    if any(text not in ("PT", "UPT") for text in predicates):
        raise ValueError("a predicate is written")
    return predicates, target, operands


def _minimum(one, target, sources, least) -> Action:
    chosen, unsigned = predicate(least), "U32" in one.modifiers

    def compute(warps):
        values = [source(warps) for source in sources]
        if not unsigned:
            values = [value.view(I32) for value in values]
        low, high = values[0], values[0]
        for value in values[1:]:
            low, high = np.minimum(low, value), np.maximum(high, value)
        result = np.where(chosen(warps), low, high)
        return (np.maximum(result, 0) if "RELU" in one.modifiers else result).view(U32)

    return computed(one, target, compute)


@instruction("IABS")
def _absolute(one):
    source = integers(one.operands[1])
    return computed(one, one.operands[0], lambda warps: np.abs(source(warps).view(I32)).view(U32))


@instruction("PRMT", "UPRMT")
def _bytes(one):
    target, *texts = one.operands
    a, chosen, b = map(integers, texts)

    def permute(warps):
        whole = b(warps).astype(U64) << WORD | a(warps)
        choice = chosen(warps)
        result = np.zeros(np.broadcast_shapes(whole.shape, choice.shape), U32)
        for i in range(4):
            nibble = choice >> U32(4 * i) & U32(15)
            byte = (whole >> ((nibble & U32(7)).astype(U64) * U64(8)) & U64(255)).astype(U32)
            byte = np.where(nibble & U32(8), (byte >> U32(7)) * U32(255), byte)
            result |= byte << U32(8 * i)
        return result

    return computed(one, target, permute)


@instruction("POPC", "UPOPC")
def _count_bits(one):
    source = integers(one.operands[1])
    return computed(one, one.operands[0], lambda warps: np.bitwise_count(source(warps)).astype(U32))
