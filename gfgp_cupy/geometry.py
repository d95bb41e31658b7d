"""Window geometry: how kernel, stride and padding map an input plane to an output plane.

A plane has two axes, height and width. Lines of one axis and volumes of three are windowed alike.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np
import torch

from .torchscript import is_tracing

__all__ = [
    "MANY_INTS",
    "NAMES_OF_AXES",
    "PoolGeometry",
    "Sizes",
    "check_axes",
    "check_flag",
    "is_empty",
    "pool_geometry",
]

Sizes = tuple[int, ...]
"""A number for each axis: (height, width) of a plane, (depth, height, width) of a volume."""

NAMES_OF_AXES = {1: "L", 2: "H, W", 3: "D, H, W"}
"""How messages write the axes of an input, by their number."""


class PoolGeometry(NamedTuple):
    """Kernel, stride and padding, in elements on each axis, and the ceil mode.

    Of planes they are (height, width) pairs. Build one with :func:`pool_geometry`, which checks the
    values.
    """

    kernel_size: Sizes
    stride: Sizes
    padding: Sizes
    ceil_mode: bool

    def output_size(self, *sizes: int) -> Sizes:
        """Windows on each axis, of the input's ``sizes``; zero or less where no window fits.

        The rule is ``torch.nn.functional.max_pool2d``'s: in ceil mode the last window may hang
        over the edge, but is dropped when it would start in the padding.
        """
        if len(sizes) == 2:  # the loop takes twice as long
            return self._output_length(sizes[0], 0), self._output_length(sizes[1], 1)
        return tuple([self._output_length(size, axis) for axis, size in enumerate(sizes)])

    def overhang(self, *sizes: int) -> Sizes:
        """Elements by which the last window reaches past the input's end, per axis (never < 0)."""
        return tuple([self._overhang(size, axis) for axis, size in enumerate(sizes)])

    # No property: PyTorch 2.6 cannot compile those of named tuples.
    def largest_overhang(self) -> Sizes:
        """The least bound that :meth:`overhang` keeps to, whatever the input's size.

        With so many elements behind it, no more windows fit into the input than it has.
        """
        return tuple([padding + self._slack(axis) for axis, padding in enumerate(self.padding)])

    @property
    def overlapping(self) -> bool:
        """Whether two windows can share an input element."""
        return any(
            stride < kernel for stride, kernel in zip(self.stride, self.kernel_size, strict=True)
        )

    def is_whole_plane(self, *sizes: int) -> bool:
        """Whether the only window is known to be a plane of this size, no more and no less.

        In a jit trace, which holds for planes of other sizes, a number is not known to be theirs.
        """
        if is_tracing():
            if any(isinstance(kernel, int) for kernel in self.kernel_size):
                return False
        else:
            for kernel, length in zip(self.kernel_size, sizes, strict=True):
                # To compare a number with a symbol would be a question about the symbol.
                if isinstance(kernel, int) != isinstance(length, int) or kernel != length:
                    return False
        # In a jit trace "same" padding is a tensor.
        return all(not isinstance(before, torch.Tensor) and before == 0 for before in self.padding)

    def _overhang(self, length: int, axis: int) -> int:
        last_start = (self._output_length(length, axis) - 1) * self.stride[axis]
        return max(0, last_start + self.kernel_size[axis] - self.padding[axis] - length)

    def _output_length(self, length: int, axis: int) -> int:
        kernel, stride, padding = self.kernel_size[axis], self.stride[axis], self.padding[axis]
        # From the first element, padding included, to where the last window may start; without a
        # question about the length, which may be symbolic.
        span = length + 2 * padding - kernel + self._slack(axis)
        return span // stride + 1

    def _slack(self, axis: int) -> int:
        """How much further than the padding the last window may reach."""
        if not self.ceil_mode:
            return 0
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        padding: Any = self.padding[axis]
        if stride <= kernel - kernel // 2:  # whatever the padding, which may be symbolic, too
            return stride - 1
        if isinstance(padding, torch.Tensor):  # in a jit trace
            return (kernel - padding - 1).clamp(max=stride - 1)  # pyright: ignore[reportReturnType]
        smaller: Any = min if isinstance(padding, int) else torch.sym_min
        return smaller(stride - 1, kernel - padding - 1)


def pool_geometry(
    kernel_size: int | Sizes,
    stride: int | Sizes | None = None,
    padding: int | Sizes = 0,
    ceil_mode: bool = False,
    axes: int = 2,
) -> PoolGeometry:
    """Checks pooling arguments and returns them as a :class:`PoolGeometry`.

    Args:
        kernel_size: window size, an int or a tuple of one for each axis, such as a
            (height, width) pair, each at least 1.
        stride: step between windows, likewise; ``None`` and ``()`` mean ``kernel_size``.
        padding: elements of padding on each side, likewise, at most half the kernel.
        ceil_mode: round the output size up instead of down.
        axes: 1, 2 or 3.

    Raises:
        TypeError: an argument is neither an int nor as many as there are axes, or ``ceil_mode`` is
            no bool.
        ValueError: a value is out of its range.

    Example:
        >>> pool_geometry(3, stride=2, padding=1).output_size(112, 112)
        (56, 56)
    """
    check_axes(axes)
    kernel = _of_each_axis("kernel_size", kernel_size, axes)
    is_kernel = stride is None or is_empty(stride)
    step = kernel if is_kernel else _of_each_axis("stride", stride, axes)
    pad = _of_each_axis("padding", padding, axes)
    if min(kernel) < 1:
        raise ValueError(f"kernel_size must be at least 1{_EVERYWHERE[axes]}, got {kernel_size}")
    if min(step) < 1:
        raise ValueError(f"stride must be at least 1{_EVERYWHERE[axes]}, got {stride}")
    if min(pad) < 0:
        raise ValueError(f"padding must not be negative, got {padding}")
    for axis in range(axes) if any(pad) else ():
        if pad[axis] > kernel[axis] // 2:
            raise ValueError(
                f"padding must be at most half of kernel_size, got padding={padding} "
                f"with kernel_size={kernel_size}: use a larger kernel or less padding"
            )
    return PoolGeometry(kernel, step, pad, check_flag("ceil_mode", ceil_mode))


def check_axes(axes: int) -> None:
    """Checks a number of axes that windows have.

    Raises:
        ValueError: it is none of 1, 2 and 3.
    """
    if type(axes) is not int or not 1 <= axes <= 3:
        raise ValueError(f"axes must be 1, 2 or 3, got {axes!r}")


def check_flag(name: str, value: object) -> bool:
    """``value`` of the argument ``name`` as a bool, for which NumPy's do, too.

    Raises:
        TypeError: it is anything else. Where it is an int, another argument may have been meant.
    """
    if value is True or value is False:
        return value
    if not isinstance(value, np.bool_):
        way_out = ""
        if name == "ceil_mode" and isinstance(value, int):
            way_out = (
                ": if it was meant as the dilation of PyTorch's max poolings, leave it out, for "
                "these windows have no gaps"
            )
        raise TypeError(f"{name} must be True or False, got {value!r}{way_out}")
    return bool(value)


def is_empty(value: object) -> bool:
    """Whether it is the empty tuple or list, which PyTorch's poolings take for "not given"."""
    return isinstance(value, (tuple, list)) and not value


_EVERYWHERE = {1: "", 2: " in both directions", 3: " in all directions"}
MANY_INTS = {1: "a tuple of one", 2: "a pair of ints", 3: "a triple of ints"}
"""What may stand in place of an int, by the number of axes."""


def _of_each_axis(name: str, value: object, axes: int) -> Sizes:
    if isinstance(value, (tuple, list)):
        if len(value) == 1:
            return (_int(name, value[0], value, axes),) * axes
        if len(value) != axes:
            raise TypeError(f"{name} must be an int or {MANY_INTS[axes]}, got {value!r}")
        return tuple([_int(name, item, value, axes) for item in value])
    return (_int(name, value, value, axes),) * axes


def _int(name: str, item: Any, value: object, axes: int) -> int:
    if type(item) is int:  # as nearly always, and this is asked on every call of a pooling
        return item
    if isinstance(item, bool) or not hasattr(item, "__index__"):
        raise TypeError(f"{name} must be an int or {MANY_INTS[axes]}, got {value!r}")
    return operator.index(item)
