"""What the library has to know of a pooling of windows to pool with it on any backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .arguments import check_number
from .geometry import PoolGeometry

__all__ = ["WindowFunction", "check_eps"]

FLOAT32 = torch.finfo(torch.float32)


def check_eps(eps: float) -> None:
    """Checks the least value of something that has to be positive, also in float32.

    Raises:
        TypeError: ``eps`` is no number.
        ValueError: it is not above 0, or not finite, or float32 has no such (normal) number.
    """
    if isinstance(eps, bool):
        raise TypeError(
            f"eps must be a number, got {eps}: if it was meant as count_include_pad, pass that by "
            "its name"
        )
    check_number("eps", eps)
    if not FLOAT32.tiny <= eps <= FLOAT32.max:
        raise ValueError(
            f"eps must be above 0 and finite, got {eps}; in float32 that is from "
            f"{FLOAT32.tiny:.2g} to {FLOAT32.max:.2g}"
        )


@dataclass(frozen=True)
class WindowFunction:
    """A pooling whose output is made of a window's elements and one number θ a window.

    Two are equal if their names and constants are: a name stands for the rest.

    Attributes:
        name: of its operators, which are called ``<name>_pool2d`` and so on.
        parameter: θ's name, in operators and messages.
        composition: the formula in PyTorch's operators, from which derivatives of any order, traces
            and exports come: of [N, C, H, W] input, 4-D θ of the type to compute in and the
            geometry, and of ``constant`` where there is one, it gives [N, C, oH, oW] of the input's
            type.
        cuda: the file of its device functions: the name of one in ``gfgp_cupy/kernels``, or a path.
            ``None``: on a GPU it is composed of PyTorch's operators.
        cpu: the full name of the module of its functions for backend ``numba``; ``None`` likewise.
        symbolic_padding: whether ``composition`` takes a geometry whose padding is symbolic, as
            "same" padding is in a program for images of any size.
        spread: how ∂y/∂θ of a window is kept for θ's gradient, see :mod:`gfgp_cupy.spread`.
        constant: a number that is the same for all windows of a call and has no gradient, such as
            a least variance; ``None``: there is none.
    """

    name: str
    parameter: str = dataclasses.field(compare=False)
    composition: Callable[..., Tensor] = dataclasses.field(compare=False)
    cuda: str | Path | None = dataclasses.field(default=None, compare=False)
    cpu: str | None = dataclasses.field(default=None, compare=False)
    symbolic_padding: bool = dataclasses.field(default=False, compare=False)
    spread: str = dataclasses.field(default="positive", compare=False)
    constant: float | None = None

    def compose(self, input: Tensor, parameter: Tensor, geometry: PoolGeometry) -> Tensor:
        """The formula in PyTorch's operators, which any of them can differentiate."""
        if self.constant is None:
            return self.composition(input, parameter, geometry)
        return self.composition(input, parameter, geometry, self.constant)

    def with_constant(self, constant: float | None) -> WindowFunction:
        """The same pooling with another constant."""
        if constant == self.constant:
            return self
        return dataclasses.replace(self, constant=None if constant is None else float(constant))

    def is_served_by(self, backend: str) -> bool:
        """Whether a backend computes this function; otherwise PyTorch's operators do.

        Backend ``torch`` has a memory-saving way for Max-Ent pooling alone. ``"auto"``: whether any
        has a way of its own.
        """
        if backend == "cupy":
            return self.cuda is not None
        if backend == "numba":
            return self.cpu is not None
        if backend == "torch":
            return self.name == "max_ent"
        return self.cuda is not None or self.cpu is not None
