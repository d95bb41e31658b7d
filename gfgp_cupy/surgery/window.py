"""The window of a pooling, whoever says it: a module of any library, or a function's call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..geometry import Sizes
from ..padding import SAME, window_geometry

__all__ = ["Window", "describe", "pair", "window_of"]


@dataclass(frozen=True)
class Window:
    """What a pooling does with its map, in (height, width) pairs.

    Build one with :func:`window_of`, which checks the values.

    Attributes:
        kernel_size, stride: pairs.
        padding: a pair, or ``"same"``: TensorFlow's, for ceil(size / stride) windows.
        ceil_mode: as in PyTorch's poolings.
        count_include_pad: whether padding takes part, as zeros.
    """

    kernel_size: Sizes
    stride: Sizes
    padding: Sizes | str = (0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = False

    def output_size(self, height: int, width: int) -> Sizes:
        """Output height and width; zero or less where no window fits."""
        geometry = window_geometry(self.kernel_size, self.stride, self.padding, self.ceil_mode)
        return geometry.output_size(height, width)

    def covers(self, input: Tensor) -> bool:
        """Whether one window has all of each map of ``input`` [..., H, W]."""
        height, width = input.shape[-2:]
        above, left = (0, 0) if isinstance(self.padding, str) else self.padding
        tall_enough = self.kernel_size[0] - above >= height
        wide_enough = self.kernel_size[1] - left >= width
        return tall_enough and wide_enough and self.output_size(height, width) == (1, 1)


def window_of(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Window:
    """The window of these arguments of a pooling: ints, or pairs of them as tuples or lists.

    ``count_include_pad`` is left out where there is no padding to count.

    Raises:
        TypeError, ValueError: as of :func:`gfgp_cupy.padding.window_geometry`.
    """
    if padding == SAME:
        ceil_mode = False  # which changes nothing there
    kernel, step, pad, ceil = window_geometry(kernel_size, stride, padding, ceil_mode)
    return Window(kernel, step, pad, ceil, count_include_pad and pad != (0, 0))


def describe(name: str, window: Window | nn.Module) -> str:
    """``name`` with the sizes that it has: ``MaxPool2d(3/2/1)`` for kernel, stride and padding."""
    padding = getattr(window, "padding", 0)
    padded = any(padding) if isinstance(padding, Sequence) else padding != 0
    keys = ["kernel_size", "stride", *(["padding"] if padded else [])]
    if not hasattr(window, "kernel_size"):
        keys = ["output_size"]  # an adaptive one
    sizes = [getattr(window, key, None) for key in keys]
    text = "/".join(_joined(size) for size in sizes if size not in (None, ()))
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
