"""How rows of 3×3 windows at stride 2 lie in scratch memory (:class:`.plan.Strip`)."""

from __future__ import annotations

from .compile import compiled
from .simd import load

__all__ = ["elements_of_row", "row_is_inside", "share_of_columns"]


@compiled
def elements_of_row(scratch, sizes, strip, slot, kind, k):
    """Left, middle and right elements of windows from ``k`` on: of row ``slot``, its elements
    (kind 0) or terms (kind 2)."""
    even = (4 * slot + kind) * strip.length + strip.margin + k
    odd = even + strip.length
    if sizes.padding_w == 0:
        return load(scratch, even), load(scratch, odd), load(scratch, even + sizes.pixel)
    return load(scratch, odd - sizes.pixel), load(scratch, even), load(scratch, odd)


@compiled
def row_is_inside(sizes, y):
    return 1.0 if 0 <= y < sizes.height else 0.0


@compiled
def share_of_columns(strip, k):
    """Where one over the number of columns inside stands, for windows from ``k`` on."""
    return strip.shares * strip.length + strip.margin + k
