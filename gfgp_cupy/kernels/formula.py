"""Which files make up a program of a family of kernels and a window function, and its macros."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from ..max_ent import MAX_ENT
from ..window_function import WindowFunction
from .launch import source, text_of

__all__ = ["Parts", "formula_defines", "kernel_name", "needs_many_registers", "numbers_of"]


MATHEMATICS = ("window_function.cu", "log_mean_exp.cu")
"""What window functions can be made of."""


class Parts(NamedTuple):
    """The ``.cu`` files of a family's programs, in their order.

    Attributes:
        ground: what comes first.
        max_ent: what stands for Max-Ent pooling, which has files of its own.
        adapter: what stands for any other function, after :data:`MATHEMATICS` and the function's
            own file, which it gives the family's windows.
        kernels: what comes last.
    """

    ground: tuple[str, ...]
    max_ent: tuple[str, ...]
    adapter: tuple[str, ...]
    kernels: tuple[str, ...]

    def source(self, function: WindowFunction) -> str:
        """The text of the family's programs for ``function``."""
        if function.cuda == MAX_ENT.cuda:
            return source(*self.ground, *self.max_ent, *self.kernels)
        return source(*self.ground, *MATHEMATICS, _file(function), *self.adapter, *self.kernels)


def formula_defines(function: WindowFunction) -> tuple[str, ...]:
    """The macros that ``function`` decides on."""
    constant = ()
    if function.constant is not None:
        constant = (f"CONSTANT=((acc_t){float(function.constant)!r})",)
    return f"POOLING={function.name}", f"SPREAD_{function.spread.upper()}=1", *constant


def kernel_name(function: WindowFunction, kernel: str, axes: int = 2) -> str:
    """What ``KERNEL(kernel)`` of ``element.cu`` becomes for ``function``, of windows of so many
    axes."""
    return f"{function.name}_pool{axes}d_{kernel}"


def numbers_of(function: WindowFunction) -> int:
    """How many numbers a window sends to its elements: ``NUMBERS`` of the function's file.

    Raises:
        ValueError: the file does not define it.
    """
    return _numbers_in(_file(function))


@functools.cache
def _numbers_in(file: str | Path) -> int:
    found = re.search(r"^#define NUMBERS (\d+)\b", text_of(file), re.MULTILINE)
    if found is None:
        raise ValueError(
            f"{file} must have a line '#define NUMBERS 3', with as many numbers as its Message has"
        )
    return int(found.group(1))


def needs_many_registers(function: WindowFunction) -> bool:
    """Whether the function's file says so: it defines ``MANY_REGISTERS``."""
    return bool(re.search(r"^#define MANY_REGISTERS\b", text_of(_file(function)), re.MULTILINE))


def _file(function: WindowFunction) -> str | Path:
    if function.cuda is None:
        raise ValueError(f"{function.name} pooling has no kernels: pool by backend 'torch'")
    return function.cuda
