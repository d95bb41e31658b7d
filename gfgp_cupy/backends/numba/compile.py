"""How the functions of this package are compiled with Numba."""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
from numba import types
from numba.core.ccallback import CFunc

from .loading import given
from .threads import Native

__all__ = ["INLINED", "ONE", "ZERO", "Compiled", "compiled", "inlined", "native"]


@dataclass(frozen=True)
class Compiled:
    """A compiled function: its code, which it lives as long as, and what calls it."""

    code: CFunc
    call: Native


def native(function) -> Callable[[str], Compiled]:
    """``function(block)`` for C to call, by the name of the type of the block's tensors' elements.

    It is compiled on the first use of each type, and kept on disk. Numba names the file after the
    function, and sees by the age of the function's own source file whether it still holds. The
    digest in the name makes a change of any file of this package a new name, so that of the files
    that the function's own imports, too, and of the file of the window function that its module was
    loaded for (:mod:`.loading`), whose name is in it for how ∂y/∂θ is kept.
    """
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    sources += given(function.__module__, "function_sources") or []
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
    digest.update(function.__module__.encode())
    function.__qualname__ += f"_{digest.hexdigest()[:16]}"

    @functools.cache
    def of_elements(name: str) -> Compiled:
        signature = types.void(types.CPointer(getattr(types, name)))
        compile_it = functools.partial(numba.cfunc, signature, error_model="numpy")
        try:
            code = compile_it(cache=True)(function)
        except RuntimeError:
            # Numba finds no directory that it may write to: every process compiles for itself.
            code = compile_it()(function)
        assert code.address is not None
        return Compiled(code, ctypes.cast(code.address, _ENTRY))

    return of_elements


_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


# Without the wrappers that Python would call them through, which take long to compile. (Numba's
# declaration lacks these options.)
compiled = numba.njit(  # pyright: ignore[reportCallIssue]
    error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True
)
"""Compiled for other compiled functions to call.

Numba compiles such a function once more for each Python integer that it is called with, so let
those be NumPy's, such as ``ZERO`` and ``ONE``.
"""

ZERO, ONE = np.int64(0), np.int64(1)

INLINED = {
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "forceinline": True,
}
"""Options of what is to be inlined."""

inlined = numba.njit(**INLINED)
"""Compiled as a part of those that call it: for what is inside a loop and longer than LLVM would
inline, so that its constants stay in registers and its results do not go by way of memory."""
