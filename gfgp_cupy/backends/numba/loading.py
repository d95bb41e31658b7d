"""The compiled functions of each family for each window function.

A family (:mod:`.tiles`, :mod:`.overlapping`, :mod:`.windows`) is written once. For each window
function its file is executed once more, as a module of another name, with the function's arithmetic
as a global; Numba then compiles it as if it had been written for that function, so
nothing is left to choose at run time, and finds it on disk in the next process. (It would not if
the arithmetic were a closure's: Numba knows those by a number that is drawn in each process.)

The arithmetic is, if a function's package has a module of the family's name, that module, as for
Max-Ent pooling; otherwise that of :mod:`.any_function`, likewise executed for the function.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["family_of", "given"]

_given: dict[str, dict[str, Any]] = {}


@functools.cache
def family_of(family: str, function: str, spread: str) -> ModuleType:
    """A family's module for a window function.

    Args:
        family: ``"tiles"``, ``"overlapping"`` or ``"windows"``.
        function: the full name of the module of its functions, see :mod:`.functions`.
        spread: how ∂y/∂θ is kept, see :mod:`gfgp_cupy.spread`.

    Raises:
        ImportError: that module cannot be imported.
    """
    try:
        functions = importlib.import_module(function)
    except ImportError as error:
        raise ImportError(
            f"the window function's cpu={function!r} cannot be imported: {error}; name a module "
            f"that can be, or leave cpu=None to compose it of PyTorch's operators"
        ) from error
    assert functions.__file__ is not None
    suffix = f"{function.replace('.', '_')}_{spread}"
    if hasattr(functions, "__path__") and importlib.util.find_spec(f"{function}.{family}"):
        arithmetic = importlib.import_module(f"{function}.{family}")
    else:
        arithmetic = _executed(
            f"{__package__}.any_function.{family}", suffix, function=functions,
            keeps_root=spread == "root",
        )  # fmt: skip
    return _executed(
        f"{__package__}.{family}",
        suffix,
        arithmetic=arithmetic,
        function_sources=[Path(functions.__file__)],
    )


def given(module: str, name: str) -> Any:
    """For a module of this package to ask what :func:`family_of` executes it with; ``None`` where
    it is only imported."""
    return _given.get(module, {}).get(name)


def _executed(name: str, suffix: str, **given: object) -> ModuleType:
    """The module ``name`` executed once more, with what is ``given`` to it."""
    source = importlib.util.find_spec(name)
    assert source is not None and source.origin is not None
    spec = importlib.util.spec_from_file_location(f"{name}_of_{suffix}", source.origin)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _given[spec.name] = given
    # Numba finds a function's globals by its module's name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
