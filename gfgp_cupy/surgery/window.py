"""The window of a pooling, whoever says it: a module of any library, or a function's call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..geometry import Sizes, is_empty
from ..padding import SAME, window_geometry

__all__ = ["Window", "describe", "pair", "window_of"]


@dataclass(frozen=True)
class Window:
    """What a pooling does with its map, in (height, width) pairs: a number for each axis.

    Build one with :func:`window_of`, which checks the values.

    Attributes:
        kernel_size, stride: such pairs.
        padding: likewise, or ``"same"``: TensorFlow's, for ceil(size / stride) windows.
        ceil_mode: as in PyTorch's poolings.
        count_include_pad: whether padding takes part, as zeros.
    """

    kernel_size: Sizes
    stride: Sizes
    padding: Sizes | str = (0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = False

    @property
    def axes(self) -> int:
        """1, 2 or 3."""
        return len(self.kernel_size)

    def output_size(self, *sizes: int) -> Sizes:
        """Windows on each axis, such as (height, width); zero or less where none fits."""
        geometry = window_geometry(
            self.kernel_size, self.stride, self.padding, self.ceil_mode, self.axes
        )
        return geometry.output_size(*sizes)

    def covers(self, input: Tensor) -> bool:
        """Whether one window has all of each map of ``input``, such as [..., H, W]."""
        axes = self.axes
        sizes = input.shape[-axes:]
        before = (0,) * axes if isinstance(self.padding, str) else self.padding
        reaches = zip(self.kernel_size, before, sizes, strict=True)
        wide_enough = all(kernel - padding >= size for kernel, padding, size in reaches)
        return wide_enough and self.output_size(*sizes) == (1,) * axes


def window_of(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    axes: int = 2,
) -> Window:
    """The window of these arguments of a pooling: ints, or one for each axis as tuples or lists.

    ``count_include_pad`` is left out where there is no padding to count.

    Raises:
        TypeError, ValueError: as of :func:`gfgp_cupy.padding.window_geometry`.
    """
    if padding == SAME:
        ceil_mode = False  # which changes nothing there
    kernel, step, pad, ceil = window_geometry(kernel_size, stride, padding, ceil_mode, axes)
    return Window(kernel, step, pad, ceil, count_include_pad and any(pad))


def describe(name: str, window: Window | nn.Module) -> str:
    """``name`` with the sizes that it has: ``MaxPool2d(3/2/1)`` for kernel, stride and padding."""
    padding = getattr(window, "padding", 0)
    padded = any(padding) if isinstance(padding, Sequence) else padding != 0
    keys = ["kernel_size", "stride", *(["padding"] if padded else [])]
    if not hasattr(window, "kernel_size"):
        keys = ["output_size"]  # an adaptive one
    sizes = [getattr(window, key, None) for key in keys]
    text = "/".join(_joined(size) for size in sizes if not (size is None or is_empty(size)))
    if getattr(window, "ceil_mode", False):
        text += ", ceil_mode"
    if padded and getattr(window, "count_include_pad", False):
        text += ", count_include_pad"
    return f"{name}({text})" if text else name


def _joined(size: object) -> str:
    if isinstance(size, str) or not isinstance(size, Sequence):
        return str(size)
    return str(size[0]) if len(set(size)) == 1 else "x".join(map(str, size))


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """``value`` for height and width."""
    return (value[0], value[-1]) if isinstance(value, Sequence) else (value, value)
