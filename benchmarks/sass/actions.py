"""Instructions by name, and how they write what they have computed."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from .listing import Instruction
from .operands import is_predicate, predicate

__all__ = [
    "MAKERS", "Action", "computed", "computed_wide", "instruction", "mask_of", "next_register",
    "parts_of", "writer",
]  # fmt: skip

Action = Callable[..., None]
"""Changes a :class:`benchmarks.sass.machine.Warps`."""

MAKERS: dict[str, Callable[[Instruction], Action]] = {}
"""What makes an action of an instruction, by its name."""

U32, U64 = np.uint32, np.uint64
LOW, WORD = U64(0xFFFFFFFF), U64(32)


def instruction(*names: str) -> Callable[[Callable], Callable]:
    """Decorates what makes actions of the instructions with these names."""

    def register(maker: Callable) -> Callable:
        for name in names:
            MAKERS[name] = maker
        return maker

    return register


def writer(text: str) -> Callable:
    """Writes to a register or predicate, under a mask."""
    match = re.fullmatch(r"(UR|UP|R|P)(\d+|Z|T)", text)
    if match is None:
        raise ValueError(f"no target: {text}")
    file, index = match.groups()
    if index in "ZT":
        return lambda warps, value, mask: None
    number = int(index)

    def write(warps, value, mask):
        if file == "R":
            np.copyto(warps.registers[number], value, where=mask)
        elif file == "P":
            np.copyto(warps.predicates[number], value, where=mask)
        elif file == "UR":
            np.copyto(warps.uniform_registers[number], value, where=mask)
        else:
            np.copyto(warps.uniform_predicates[number], value, where=mask)

    return write


def next_register(text: str, offset: int) -> str:
    """The register that comes ``offset`` after another; RZ after RZ."""
    match = re.fullmatch(r"(U?R)(\d+|Z)", text)
    if match is None:
        raise ValueError(f"no register: {text}")
    return text if match[2] == "Z" else f"{match[1]}{int(match[2]) + offset}"


def mask_of(one: Instruction, target: str) -> Callable:
    """The lanes that execute the instruction, or the warps if ``target`` is one a warp."""
    guard = None if one.guard is None else predicate(one.guard)
    uniform = target.startswith("U")

    def mask(warps):
        there = warps.warps if uniform else warps.lanes
        return there if guard is None else there & guard(warps)

    return mask


def computed(one: Instruction, target: str, compute: Callable) -> Action:
    """Writes what ``compute(warps)`` gives to ``target``."""
    write, mask = writer(target), mask_of(one, target)
    return lambda warps: write(warps, compute(warps), mask(warps))


def computed_wide(one: Instruction, target: str, compute: Callable) -> Action:
    """Writes 64 bits to ``target`` and the next register."""
    low, high, mask = writer(target), writer(next_register(target, 1)), mask_of(one, target)

    def act(warps):
        value, where = compute(warps), mask(warps)
        low(warps, (value & LOW).astype(U32), where)
        high(warps, (value >> WORD).astype(U32), where)

    return act


def parts_of(one: Instruction) -> tuple[list[str], str, list[str]]:
    """Predicates written, the register written, what is read."""
    operands = list(one.operands)
    if is_predicate(operands[0]):
        first = []
        while is_predicate(operands[0]):
            first.append(operands.pop(0))
        target = operands.pop(0)
    else:
        target, first = operands.pop(0), []
        while operands and is_predicate(operands[0]):
            first.append(operands.pop(0))
    return first, target, operands
