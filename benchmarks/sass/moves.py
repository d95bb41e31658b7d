"""Moves, constants, special registers, and what does nothing here."""

from __future__ import annotations

import re

import numpy as np

from .actions import computed, computed_wide, instruction, mask_of, next_register, parts_of, writer
from .memory import access_bytes
from .operands import integers

U32, U64 = np.uint32, np.uint64


@instruction("MOV", "UMOV")
def _mov(one):
    return computed(one, one.operands[0], integers(one.operands[1]))


@instruction("LDC", "ULDC", "LDCU")
def _load_constant(one):
    target, text = one.operands
    match = re.fullmatch(r"c\[0x([0-9a-f])\]\[(RZ|0x[0-9a-f]+)\]", text)
    if match is None:
        raise ValueError("its address is not a constant")
    bank, at = int(match[1], 16), 0 if match[2] == "RZ" else int(match[2], 16)
    words = access_bytes(one.modifiers) // 4
    targets = [writer(next_register(target, i)) for i in range(words)]
    mask = mask_of(one, target)

    def act(warps):
        where = mask(warps)
        for i, write in enumerate(targets):
            write(warps, warps.constant(bank, at + 4 * i), where)

    return act


@instruction("CS2R")
def _clear(one):
    if one.operands[1] != "SRZ":
        raise ValueError("which special register?")
    zero = np.zeros((1, 1), U64)
    if "32" in one.modifiers:
        return computed(one, one.operands[0], lambda warps: zero.astype(U32))
    return computed_wide(one, one.operands[0], lambda warps: zero)


@instruction("S2R", "S2UR")
def _special(one):
    target, name = one.operands
    values = {
        "SR_TID.X": lambda warps: warps.thread.astype(U32),
        "SR_CTAID.X": lambda warps: warps.block_index.astype(U32),
        "SR_LANEID": lambda warps: (warps.thread % 32).astype(U32),
        "SR_CgaCtaId": lambda warps: np.zeros((1, 1), U32),
    }
    return computed(one, target, values[name])


@instruction("R2UR")
def _to_uniform(one):
    predicates, target, (text, *_) = parts_of(one)
    if predicates and predicates != ["PT"]:
        raise ValueError("a predicate is written")
    source = integers(text)

    def first_lane(warps):
        lane = warps.lanes.argmax(1)[:, None]
        return np.take_along_axis(np.broadcast_to(source(warps), warps.lanes.shape), lane, 1)

    return computed(one, target, first_lane)


@instruction("NOP", "YIELD", "WARPSYNC", "ERRBAR", "CCTL", "MEMBAR", "UNOP")
def _nothing(one):
    return lambda warps: None


@instruction("BSSY")
def _meet_later(one):
    name = one.operands[0]
    return lambda warps: warps.set_meeting(name)
