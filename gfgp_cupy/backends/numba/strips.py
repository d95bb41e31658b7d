"""How rows of 3×3 windows at stride 2 lie in scratch memory (:class:`.plan.Strip`)."""

from __future__ import annotations

import numpy as np

from .compile import ONE, ZERO, compiled
from .simd import load

__all__ = [
    "ELEMENTS", "FIRST", "MIDDLE", "TERMS", "THIRD", "columns_inside", "elements_of_row",
    "row_is_inside", "share_of_columns",
]  # fmt: skip

FIRST, MIDDLE, THIRD = ZERO, ONE, np.int64(2)
"""Slots of rows."""

ELEMENTS, TERMS = ZERO, np.int64(2)
"""Kinds of rows."""


@compiled
def elements_of_row(scratch, sizes, strip, slot, kind, k):
    """Left, middle and right elements of windows from ``k`` on: of row ``slot``, its elements or
    terms."""
    even = (4 * slot + kind) * strip.length + strip.margin + k
    odd = even + strip.length
    if sizes.padding_w == 0:
        return load(scratch, even), load(scratch, odd), load(scratch, even + sizes.pixel)
    return load(scratch, odd - sizes.pixel), load(scratch, even), load(scratch, odd)


@compiled
def columns_inside(scratch, sizes, strip, k):
    """Whether left, middle and right columns of windows from ``k`` on are inside: 1 or 0."""
    return elements_of_row(scratch, sizes, strip, FIRST, strip.inside, k)


@compiled
def row_is_inside(sizes, y):
    return 1.0 if 0 <= y < sizes.height else 0.0


@compiled
def share_of_columns(strip, k):
    """Where one over the number of columns inside stands, for windows from ``k`` on."""
    return strip.shares * strip.length + strip.margin + k
