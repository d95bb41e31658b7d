"""What instructions read: each operand as a function of the warps' state.

A value is an array [warps, 32] of one number a lane, [warps, 1] of one a warp, or [1, 1].
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "Source",
    "floats",
    "integers",
    "is_predicate",
    "predicate",
    "registers_of",
    "wide_integers",
]

Source = Callable[[Any], np.ndarray]
"""Reads an operand from a :class:`benchmarks.sass.machine.Warps`."""

OPERAND = re.compile(
    r"(?P<sign>[-~+]?)(?P<absolute>\|?)"
    r"(?:(?P<file>UR|R|SR)(?P<index>\d+|Z)|c\[0x(?P<bank>[0-9a-f])\]\[0x(?P<at>[0-9a-f]+)\])"
    r"\|?(?P<tail>(?:\.\w+)*)\|?"
)
PREDICATE = re.compile(r"(!?)(UP|P)(\d|T)")
SIGN_BIT = np.uint32(0x80000000)


def predicate(text: str) -> Source:
    """Such as ``!P0`` or ``UPT``."""
    match = PREDICATE.fullmatch(text)
    if match is None:
        raise ValueError(f"not a predicate: {text}")
    negated, file, index = match[1] == "!", match[2], match[3]
    if index == "T":
        constant = np.array([[not negated]])
        return lambda warps: constant
    number = int(index)
    if file == "UP":
        read = lambda warps: warps.uniform_predicates[number]  # noqa: E731
    else:
        read = lambda warps: warps.predicates[number]  # noqa: E731
    return (lambda warps: ~read(warps)) if negated else read


def is_predicate(text: str) -> bool:
    """Whether an operand is one."""
    return PREDICATE.fullmatch(text) is not None


def integers(text: str) -> Source:
    """32 bits, a minus or a tilde applied."""
    if re.fullmatch(r"[-~]?0x[0-9a-f]+", text):
        sign, digits = (text[0], text[1:]) if text[0] in "-~" else ("", text)
        number = int(digits, 16)
        number = {"-": -number, "~": ~number, "": number}[sign]
        return _constant(number & 0xFFFFFFFF)
    if (number := _as_float(text)) is not None:
        return _constant(int(np.float32(number).view(np.uint32)))
    match = _matched(text)
    read, sign = _word(match), match["sign"]
    if match["absolute"]:
        magnitude = read
        read = lambda warps: magnitude(warps) & ~SIGN_BIT  # noqa: E731
    if sign == "-":
        return lambda warps: np.uint32(0) - read(warps)
    if sign == "~":
        return lambda warps: ~read(warps)
    return read


def wide_integers(text: str) -> Source:
    """64 bits: a register and the next one."""
    match = OPERAND.fullmatch(text)
    if match is None:
        return (lambda low: lambda warps: low(warps).astype(np.uint64))(integers(text))
    low, high, sign = _word(match), _word(match, 1), match["sign"]

    def read(warps):
        value = high(warps).astype(np.uint64) << np.uint64(32) | low(warps)
        return np.uint64(0) - value if sign == "-" else ~value if sign == "~" else value

    return read


def floats(text: str) -> Source:
    """float32, a minus and bars applied; of a half float, ``.H0_H0`` or ``.H1_H1``."""
    number = _as_float(text)
    if number is not None:
        value = np.array([[number]], np.float32)
        return lambda warps: value
    if re.fullmatch(r"-?0x[0-9a-f]+", text):
        word = integers(text)
        return lambda warps: word(warps).view(np.float32)
    match = _matched(text)
    word, negative, absolute = _word(match), match["sign"] == "-", match["absolute"]
    tail = match["tail"].split(".")
    half = "H1_H1" in tail or "H0_H0" in tail
    shift = np.uint32(16 * ("H1_H1" in tail))

    def read(warps):
        if half:
            value = (word(warps) >> shift).astype(np.uint16).view(np.float16).astype(np.float32)
        else:
            value = word(warps).view(np.float32)
        if absolute:
            value = np.abs(value)
        return -value if negative else value

    return read


def registers_of(text: str, count: int = 1) -> tuple[int, ...]:
    """The numbers of the lanes' registers (not RZ) that an operand of ``count`` words names."""
    return tuple(
        int(first) + i for first in re.findall(r"(?<![UB\w])R(\d+)", text) for i in range(count)
    )


def _matched(text: str) -> re.Match:
    match = OPERAND.fullmatch(text)
    if match is None:
        raise ValueError(f"operand {text!r} is not understood")
    return match


def _word(match: re.Match, offset: int = 0) -> Source:
    if match["at"] is not None:
        bank, at = int(match["bank"], 16), int(match["at"], 16) + 4 * offset
        return lambda warps: warps.constant(bank, at)
    if match["index"] == "Z":
        return _constant(0)
    index = int(match["index"]) + offset
    if match["file"] == "UR":
        return lambda warps: warps.uniform_registers[index]
    return lambda warps: warps.registers[index]


def _constant(number: int) -> Source:
    value = np.array([[number]], np.uint32)
    return lambda warps: value


def _as_float(text: str) -> float | None:
    if re.fullmatch(r"[-+]?(INF|QNAN|SNAN)", text):
        sign = -1.0 if text[0] == "-" else 1.0
        return sign * float("inf" if "INF" in text else "nan")
    return float(text) if re.fullmatch(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", text) else None
