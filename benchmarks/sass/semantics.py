"""What each instruction does to the warps' registers."""

from __future__ import annotations

from . import exchange, floats, integers, moves, predicates
from .actions import MAKERS, Action
from .listing import Instruction

__all__ = ["compiled"]

MODULES = exchange, floats, integers, moves, predicates  # which register their instructions


def compiled(one: Instruction) -> Action:
    """The instruction as a function of warps.

    Raises:
        RuntimeError: it is not known here.
    """
    name = one.name
    uniform = name not in MAKERS and name.startswith("U") and name[1:] in MAKERS
    if name not in MAKERS and not uniform:
        raise RuntimeError(f"instruction not known: {one}")
    try:
        return MAKERS[name[1:] if uniform else name](one)
    except (ValueError, IndexError, KeyError) as error:
        raise RuntimeError(f"instruction not understood: {one}: {error}") from error
