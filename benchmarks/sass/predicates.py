"""Comparisons, logic, votes: what writes predicates, and the same logic on words."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

import numpy as np

from .actions import Action, computed, instruction, mask_of, parts_of, writer
from .listing import Instruction
from .operands import integers, predicate

__all__ = ["COMPARISONS", "two_predicates"]

U32, U64, I32 = np.uint32, np.uint64, np.int32

COMPARISONS = {
    "LT": operator.lt, "LE": operator.le, "GT": operator.gt, "GE": operator.ge,
    "EQ": operator.eq, "NE": operator.ne,
}  # fmt: skip


@instruction("ISETP", "UISETP")
def _compare(one):
    comparison, *rest = one.modifiers
    signed, extended = "U32" not in rest, "EX" in rest
    first, second, a, b, *others = one.operands
    a, b = integers(a), integers(b)
    compare = COMPARISONS[comparison]
    low = predicate(others.pop()) if extended else None
    joined = predicate(others[0])

    def result(warps):
        left, right = a(warps), b(warps)
        if signed:
            left, right = left.view(I32), right.view(I32)
        if low is None:
            return compare(left, right)
        return np.where(left == right, low(warps), compare(left, right))

    return two_predicates(one, first, second, result, joined, rest)


def two_predicates(
    one: Instruction,
    first: str,
    second: str,
    result: Callable,
    joined: Callable,
    modifiers: list[str],
) -> Action:
    """Writes ``result`` combined with a predicate, and its opposite likewise."""
    combine = {"AND": np.logical_and, "OR": np.logical_or, "XOR": np.logical_xor}
    join = next(combine[word] for word in modifiers if word in combine)
    writes, mask = (writer(first), writer(second)), mask_of(one, first)

    def act(warps):
        value, with_, where = result(warps), joined(warps), mask(warps)
        results = join(value, with_), join(~value, with_)  # before either is written
        for write, one_result in zip(writes, results, strict=True):
            write(warps, one_result, where)

    return act


@instruction("PLOP3", "UPLOP3")
def _predicate_logic(one):
    *targets, a, b, c, first, second = one.operands
    a, b, c = map(predicate, (a, b, c))
    tables = int(first, 16), int(second, 16)
    writes = [writer(text) for text in targets]
    mask = mask_of(one, targets[0])

    def act(warps):
        values = a(warps), b(warps), c(warps)
        results = [_tabled(table, *values) for table in tables]
        where = mask(warps)
        for write, result in zip(writes, results, strict=True):
            write(warps, result, where)

    return act


@instruction("LOP3", "ULOP3")
def _logic(one):
    predicates, target, operands = parts_of(one)
    a, b, c = map(integers, operands[:3])
    table = int(operands[3], 16)
    if operands[4:] not in (["!PT"], ["!UPT"], []):
        raise ValueError("a predicate is read")

    def look_up(warps):
        return _tabled(table, a(warps), b(warps), c(warps))

    write, mask = writer(target), mask_of(one, target)
    outs = [writer(text) for text in predicates]

    def act(warps):
        value, where = look_up(warps), mask(warps)
        write(warps, value, where)
        for out in outs:
            out(warps, value != 0, where)

    return act


def _tabled(table: int, a, b, c):
    """A function of three bits, for each bit of three words."""
    simple = {
        0xC0: lambda: a & b, 0xFC: lambda: a | b, 0x3C: lambda: a ^ b, 0x80: lambda: a & b & c,
        0xFE: lambda: a | b | c, 0xF8: lambda: a | (b & c), 0xEA: lambda: (a & b) | c,
        0x33: lambda: ~b, 0x30: lambda: a & ~b,
    }  # fmt: skip
    if table in simple:
        return simple[table]()
    value = a & ~a & b & c
    for i in range(8):
        if table >> i & 1:
            term = (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
            value = value | term
    return value


@instruction("P2R")
def _pack_predicates(one):
    target, _, kept, text = one.operands
    kept, chosen = integers(kept), int(text, 16)

    def pack(warps):
        value = np.zeros(warps.lanes.shape, U32)
        for i in range(7):
            value |= warps.predicates[i].astype(U32) << U32(i)
        return (kept(warps) & U32(~chosen & 0xFFFFFFFF)) | (value & U32(chosen))

    return computed(one, target, pack)


@instruction("R2P")
def _unpack_predicates(one):
    _, text, chosen = one.operands
    source, mask = integers(text), mask_of(one, "P0")

    def act(warps):
        value = source(warps)
        for i in range(7):
            if int(chosen, 16) >> i & 1:
                np.copyto(warps.predicates[i], (value >> U32(i) & U32(1)) != 0, where=mask(warps))

    return act


@instruction("VOTE", "VOTEU")
def _vote(one):
    operands = list(one.operands)
    voted = predicate(operands.pop())
    kind = one.modifiers[0]
    targets = [(text, writer(text), mask_of(one, text)) for text in operands]

    def act(warps):
        votes = np.broadcast_to(voted(warps), warps.lanes.shape)
        any = (votes & warps.lanes).any(1, keepdims=True)
        all = (votes | ~warps.lanes).all(1, keepdims=True)
        bits = ((votes & warps.lanes).astype(U64) << np.arange(32, dtype=U64)).sum(1, keepdims=True)
        for text, write, mask in targets:
            is_register = re.fullmatch(r"U?R.*", text)
            write(
                warps,
                bits.astype(U32) if is_register else any if kind == "ANY" else all,
                mask(warps),
            )

    return act
