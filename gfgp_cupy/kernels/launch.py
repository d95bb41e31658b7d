"""One kernel launch, described: source, specialisation, grid and arguments."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from torch import Tensor

__all__ = ["Launch", "source", "text_of"]


@dataclass(slots=True)
class Launch:
    """A kernel, how it is specialised, and what it runs on.

    Attributes:
        name: the ``extern "C"`` kernel function.
        source: CUDA C++ text, complete: it includes nothing.
        defines: macros that specialise the source, each "NAME=VALUE".
        grid: number of blocks, along x.
        block: threads a block, along x.
        args: tensors (passed as pointers), ``None`` (a null pointer, for what this specialisation
            does not touch) and ints (passed as ``long long``).
        shared_bytes: dynamic shared memory of a block, in bytes.
    """

    name: str
    source: str
    defines: tuple[str, ...]
    grid: int
    block: int
    args: tuple[Tensor | int | None, ...]
    shared_bytes: int = 0


@functools.cache
def source(*files: str | Path) -> str:
    """The texts of ``.cu`` files, one after the other.

    The compiler sees one text, because a cache of compiled kernels keyed by the text would not
    notice a change in an included file.
    """
    return "".join(f'#line 1 "{Path(file).name}"\n{text_of(file)}' for file in files)


@functools.cache
def text_of(file: str | Path) -> str:
    """The text of a file: one of this package by its name alone, any other by its path."""
    if isinstance(file, str) and Path(file).name == file:
        return resources.files("gfgp_cupy.kernels").joinpath(file).read_text(encoding="utf-8")
    return Path(file).read_text(encoding="utf-8")
