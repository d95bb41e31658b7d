"""The compiled functions of each family for each window function.

A family (:mod:`.tiles`, :mod:`.overlapping`, :mod:`.windows`, :mod:`.long_windows`) is written
once. For each window function its file is executed once more, as a module of another name, with the
function's arithmetic as a global; Numba then compiles it as if it had been written for that
function, so nothing is left to choose at run time, and finds it on disk in the next process. (It
would not if the arithmetic were a closure's: Numba knows those by a number that is drawn in each
process.)

The arithmetic is, if a function's package has a module of the family's name, that module, as for
Max-Ent pooling; otherwise that of :mod:`.any_function`, likewise executed for the function.

What is on disk must not be taken for a function whose sources have changed, and those of a function
that is not this package's may be anywhere: :func:`_digest_of` finds them.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

__all__ = ["family_of", "given"]

_given: dict[str, dict[str, Any]] = {}

CONSTANTS = (bool, int, float, complex, str, np.generic, np.ndarray)
"""What Numba compiles in by its value."""

KNOWN = {*sys.stdlib_module_names, "llvmlite", "numba", "numpy", "torch"}
"""Packages whose sources nobody edits."""


@functools.cache
def family_of(family: str, function: str, spread: str) -> ModuleType:
    """A family's module for a window function.

    Args:
        family: ``"tiles"``, ``"overlapping"``, ``"windows"`` or ``"long_windows"``.
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
    suffix = f"{function.replace('.', '_')}_{spread}"
    if hasattr(functions, "__path__") and importlib.util.find_spec(f"{function}.{family}"):
        arithmetic = importlib.import_module(f"{function}.{family}")
        own = [functions, arithmetic]
    else:
        own = [functions]
        arithmetic = _executed(
            f"{__package__}.any_function.{family}", suffix, function=functions,
            keeps_root=spread == "root",
        )  # fmt: skip
    return _executed(
        f"{__package__}.{family}",
        suffix,
        arithmetic=arithmetic,
        function_digest=_digest_of(own),
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


def _digest_of(modules: list[ModuleType]) -> bytes:
    """Of all that the functions of these modules are compiled from: the files of their packages,
    those of the modules whose functions they use, and so on; constants, wherever those are from.

    This package's own modules are left out: its files are in every function's digest.
    """
    digest = hashlib.sha256()
    pending = [module for module in modules if not _is_known(module)]
    for file in sorted(file for module in pending for file in _files_of_package(module)):
        digest.update(file.read_bytes())
    seen = set()
    while pending:
        module = pending.pop()
        if module.__name__ in seen:
            continue
        seen.add(module.__name__)
        digest.update(_source_of(module))
        for value in _used_by(module):
            if isinstance(value, CONSTANTS):
                digest.update(pickle.dumps(value))
            elif (home := _home_of(value)) is not None and not _is_known(home):
                pending.append(home)
    return digest.digest()


def _is_known(module: ModuleType) -> bool:
    name = module.__name__
    return name.partition(".")[0] in KNOWN or f"{name}.".startswith(f"{__package__}.")


def _files_of_package(module: ModuleType) -> Iterator[Path]:
    for folder in getattr(module, "__path__", ()):
        yield from Path(folder).rglob("*.py")


def _source_of(module: ModuleType) -> bytes:
    """Nothing of a package that has no file of its own."""
    file = Path(getattr(module, "__file__", None) or "")
    return file.read_bytes() if file.is_file() else b""


def _used_by(module: ModuleType) -> Iterator[Any]:
    """What the functions of a module name, of its own or of another module that they name."""
    functions = [_as_written(value) for value in vars(module).values()]
    codes = [function.__code__ for function in functions if isinstance(function, FunctionType)]
    names = sorted({name for code in codes for name in _names_in(code)})
    spaces = [module]
    for space in spaces:
        for name in names:
            value = vars(space).get(name)
            yield from _flat(value)
            if isinstance(value, ModuleType) and not _is_known(value) and value not in spaces:
                spaces.append(value)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _flat(value: Any) -> Iterator[Any]:
    """The value, or what a collection holds."""
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, (tuple, list)):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def _home_of(value: Any) -> ModuleType | None:
    """The module itself, or that in which a function or a class is defined."""
    if isinstance(value, ModuleType):
        return value
    return sys.modules.get(str(getattr(_as_written(value), "__module__", None)))


def _as_written(value: Any) -> Any:
    """The function that Numba compiles, or the value itself."""
    return getattr(value, "py_func", value)
