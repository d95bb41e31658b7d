"""The one argument of the compiled functions: a block of 64-bit numbers.

They are in the order of the names below; :mod:`.arguments` reads them. Threads that are given the
same block share the work: each takes a part, and another when that is done, until none is left.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence

from .plan import Plan, Sizes

__all__ = [
    "CONSTANT",
    "EXTRA",
    "LAM_PARTS",
    "NO_PARTS",
    "OF_EACH_PLANE",
    "OF_EACH_ROW",
    "OF_EACH_WINDOW",
    "PARTS",
    "ROWS",
    "ROWS_TOGETHER",
    "SCRATCH",
    "SCRATCH_SIZE",
    "SIZES",
    "TAKEN",
    "TENSORS",
    "block_of",
]

TAKEN, PARTS, ROWS, ROWS_TOGETHER, LAM_PARTS, SCRATCH, SCRATCH_SIZE, CONSTANT, TENSORS = range(9)
SIZES = TENSORS + 6
EXTRA = SIZES + len(Sizes._fields)

NO_PARTS, OF_EACH_WINDOW, OF_EACH_ROW, OF_EACH_PLANE = range(4)
"""What λ's gradient comes in."""


def block_of(
    plan: Plan, tensors: Sequence[int], parts: int, scratch: int, lam_parts: int = NO_PARTS,
    rows_together: int = 1, constant: float | None = None,
) -> array:  # fmt: skip
    """The block of a call.

    Args:
        tensors: addresses, at most six; 0 for one that is not needed.
        scratch: the address of ``plan.scratch`` elements for each part.
        lam_parts: what λ's gradient comes in.
        rows_together: of the output, which one part has; at most a part's share of all.
        constant: that of the window function.
    """
    missing = (0,) * (SIZES - TENSORS - len(tensors))
    return array(
        "q",
        (
            0, parts, plan.output_rows, rows_together, lam_parts, scratch, plan.scratch,
            _bits(constant), *tensors, *missing, *plan.numbers,
        ),
    )  # fmt: skip


def _bits(constant: float | None) -> int:
    return 0 if constant is None else struct.unpack("q", struct.pack("d", constant))[0]
