"""How the functions for the CPU are compiled."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numba

__all__ = ["cached", "compiled"]


def cached(function):
    """Compiled for Python to call, and kept on disk.

    Numba names the file after the function, and sees by this source file's age whether it still
    holds. The digest in the name makes any change, in the files imported too, a new name.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    function.__qualname__ += f"_{digest[:16]}"
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # Numba finds no directory that it may write to: every process compiles for itself.
        return numba.njit(**options)(function)


# Without the wrappers that Python would call it through, which take long to compile.
compiled = numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Compiled for other compiled functions to call."""
