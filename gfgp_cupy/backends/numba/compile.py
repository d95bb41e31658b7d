"""How the functions of this package are compiled with Numba."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
from numba import types
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.errors import NumbaError

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
    that the function's own imports, too, and of what the window function that its module was loaded
    for is made of (:mod:`.loading`), whose name is in it for how ∂y/∂θ is kept.
    """
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
    digest.update(given(function.__module__, "function_digest") or b"")
    digest.update(function.__module__.encode())
    function.__qualname__ += f"_{digest.hexdigest()[:16]}"

    @functools.cache
    def of_elements(name: str) -> Compiled:
        code = _code_of(function, types.void(types.CPointer(getattr(types, name))))
        assert code.address is not None
        return Compiled(code, ctypes.cast(code.address, _ENTRY))

    return of_elements


def _code_of(function, signature) -> CFunc:
    """The function's code, found on disk or compiled and kept there; where that fails, compiled for
    this process alone."""
    compile_it = functools.partial(numba.cfunc, signature, error_model="numpy")
    try:
        return compile_it(cache=True)(function)
    except NumbaError:
        raise  # of compiling
    except RuntimeError:
        fault = None  # Numba finds no directory that it may write to.
    except OSError as error:
        fault = (
            f"cannot be read or written ({error}), so every process compiles for itself: make room "
            "for it, or name another folder in NUMBA_CACHE_DIR"
        )
    except Exception as error:
        # What a damaged file raises when it is read: there is hardly an error that cannot be.
        fault = f"had a damaged file ({type(error).__name__}: {error}); it is removed"
        _remove_files_of(function)
    code = compile_it()(function)  # raises what was no fault of the cache
    if fault is not None:
        warnings.warn(f"Numba's cache of functions {fault}", RuntimeWarning, stacklevel=2)
    return code


def _remove_files_of(function) -> None:
    """The index and the code of all types, which that numbers: the next process starts anew."""
    folder = Path(FunctionCache(function).cache_path)
    for file in folder.glob(f"*.{function.__qualname__}-*"):
        with suppress(OSError):  # of one that is gone, or may not be
            file.unlink()


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
