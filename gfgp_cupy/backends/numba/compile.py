"""How the functions of this package are compiled with Numba."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numba

__all__ = ["cached", "compiled"]


def cached(function):
    """Compiled for Python to call, and kept on disk.

    Numba names the file after the function, and sees by the age of the function's own source file
    whether it still holds. The digest in the name makes a change of any file of this package a new
    name, so that of the files that the function's own imports, too.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    function.__qualname__ += f"_{digest[:16]}"
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:
        # Numba finds no directory that it may write to: every process compiles for itself.
        return numba.njit(nogil=True, error_model="numpy")(function)


# Without the wrappers that Python would call it through, which take long to compile. (Numba's
# declaration lacks the two options.)
compiled = numba.njit(  # pyright: ignore[reportCallIssue]
    error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)
"""Compiled for other compiled functions to call."""
