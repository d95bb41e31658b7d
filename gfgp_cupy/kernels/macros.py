"""What a launch depends on besides addresses, and the macros that follow from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..geometry import PoolGeometry
from ..max_ent import MAX_ENT
from ..memory_format import layout_of
from ..window_function import WindowFunction
from .formula import formula_defines, kernel_name

__all__ = [
    "DTYPE_MACROS",
    "INT_LIMIT",
    "Problem",
    "has_channels_side_by_side",
    "index_type",
    "problem_of",
    "switches",
]

DTYPE_MACROS = {
    torch.float16: "DTYPE_FLOAT16=1",
    torch.bfloat16: "DTYPE_BFLOAT16=1",
    torch.float32: "DTYPE_FLOAT32=1",
    torch.float64: "DTYPE_FLOAT64=1",
}

INT_LIMIT = 2**31 - 4096
"""Above so many elements, offsets (of a thread in the last block, and a block's step past the last
element, too) need 64 bits."""


def index_type(elements: int) -> str:
    """The C++ type that holds every offset into a tensor of so many elements."""
    return "int" if elements < INT_LIMIT else "long long"


class Problem(NamedTuple):
    """Hashable, so that what is worked out for one is worked out once.

    Attributes:
        shape: [N, C, H, W] of the input; [N, C, D, H, W] of volumes.
        dtype: of input and output.
        channels_last: whether input and output lie in memory pixel by pixel.
        lam_shape, lam_strides: of λ, which has as many dimensions; strides in elements.
        geometry: the windows.
        function: what becomes of a window.
    """

    shape: torch.Size
    dtype: torch.dtype
    channels_last: bool
    lam_shape: torch.Size
    lam_strides: tuple[int, ...]
    geometry: PoolGeometry
    function: WindowFunction

    @property
    def output_shape(self) -> tuple[int, ...]:
        return *self.shape[:2], *self.geometry.output_size(*self.shape[2:])

    @property
    def sizes(self) -> tuple[int, ...]:
        """C, H, W, oH, oW, and the steps through λ from window to window (0: the same λ)."""
        steps = (
            0 if size == 1 else stride
            for size, stride in zip(self.lam_shape, self.lam_strides, strict=True)
        )
        return *self.shape[1:], *self.output_shape[2:], *steps

    @property
    def defines(self) -> tuple[str, ...]:
        """The macros that all kernels but ``lam_gradient.cu`` share."""
        # Padding can make the output the larger one, and λ be a few elements of a large tensor.
        lam = sum(
            (size - 1) * stride
            for size, stride in zip(self.lam_shape, self.lam_strides, strict=True)
        )
        elements = max(math.prod(self.shape), math.prod(self.output_shape), lam + 1)
        return (
            DTYPE_MACROS[self.dtype],
            f"index_t={index_type(elements)}",
            f"CHANNELS_LAST={int(self.channels_last)}",
            *formula_defines(self.function),
        )

    @property
    def window_defines(self) -> tuple[str, ...]:
        """The macros of kernels that hold windows in registers."""
        names = "HW" if len(self.shape) == 4 else "DHW"
        of_axes = zip(("KERNEL", "STRIDE", "PADDING"), self.geometry[:3], strict=True)
        return (
            *(
                f"{what}_{axis}={size}"
                for what, sizes in of_axes
                for axis, size in zip(names, sizes, strict=True)
            ),
            f"LAM_PER_WINDOW={int(self.lam_varies_in_plane)}",
        )

    def kernel(self, name: str) -> str:
        """The full name of a kernel."""
        return kernel_name(self.function, name, axes=len(self.shape) - 2)

    @property
    def for_max_ent(self) -> bool:
        """Whether the kernels are those of Max-Ent pooling, whose registers are known."""
        return self.function.cuda == MAX_ENT.cuda

    @property
    def lam_varies_in_plane(self) -> bool:
        """Whether λ differs from window to window of a plane."""
        return self.lam_shape[2:].numel() > 1

    @property
    def acc_size(self) -> int:
        """Bytes of the type that kernels compute in."""
        return 8 if self.dtype is torch.float64 else 4


def has_channels_side_by_side(tensor: Tensor) -> bool:
    """Whether the dense ``tensor`` lies in memory pixel by pixel. With one channel it lies plane by
    plane in both formats, and threads can share out planes only if they are taken for that."""
    return tensor.shape[1] > 1 and layout_of(tensor) is torch.channels_last


def problem_of(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, layout: torch.memory_format,
    function: WindowFunction,
) -> Problem:  # fmt: skip
    """The problem of pooling ``input``, dense in its memory format ``layout``, with 4-D ``lam``."""
    shape = input.shape
    channels_last = shape[1] > 1 and layout is not torch.contiguous_format
    return Problem(shape, input.dtype, channels_last, lam.shape, lam.stride(), geometry, function)


SWITCHES = ("ADD_MEAN_GRAD", "WRITE_GRAD_INPUT", "WRITE_GRAD_LAM", "WRITE_SPREAD")


def switches(*on: str) -> tuple[str, ...]:
    """The macros that turn parts of a kernel on (those named) and off (all others)."""
    return tuple(f"{name}={int(name in on)}" for name in SWITCHES)
