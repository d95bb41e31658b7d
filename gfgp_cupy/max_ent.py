"""Max-Ent pooling as a window function."""

from __future__ import annotations

from .reference import composition
from .window_function import WindowFunction

__all__ = ["MAX_ENT"]

MAX_ENT = WindowFunction(
    name="max_ent",
    parameter="lam",
    composition=composition,
    cuda="max_ent.cu",
    cpu="gfgp_cupy.backends.numba.max_ent",
    symbolic_padding=True,
    spread="root",
)
"""θ is λ; ∂y/∂λ is the variance of the elements under their weights."""
