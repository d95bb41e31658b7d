"""How windows that were gathered lie in scratch memory (:class:`.plan.Rows`)."""

from __future__ import annotations

from .compile import compiled

__all__ = ["block_of_rows"]


@compiled
def block_of_rows(rows, first, lane):
    """Where in scratch rows a block of positions begins, for each of them from ``first`` on."""
    last = min(first + rows.block, rows.positions)
    return range(first * rows.length + lane, last * rows.length, rows.length)
