"""Window geometry: how kernel, stride and padding map an input plane to an output plane."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch

__all__ = ["PoolGeometry", "check_flag", "pool_geometry"]


class PoolGeometry(NamedTuple):
    """Kernel, stride and padding as (height, width) pairs, in elements, and the ceil mode.

    Build one with :func:`pool_geometry`, which checks the values.
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    ceil_mode: bool

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Output height and width; zero or less where no window fits.

        The rule is ``torch.nn.functional.max_pool2d``'s: in ceil mode the last window may hang
        over the edge, but is dropped when it would start in the padding.
        """
        return self._output_length(height, 0), self._output_length(width, 1)

    def overhang(self, height: int, width: int) -> tuple[int, int]:
        """Elements by which the last window reaches past the plane's end, per axis (never < 0)."""
        return self._overhang(height, 0), self._overhang(width, 1)

    # No property: PyTorch 2.6 cannot compile those of named tuples.
    def largest_overhang(self) -> tuple[int, int]:
        """The least bound that :meth:`overhang` keeps to, whatever the plane's size.

        With so many elements behind it, no more windows fit into the plane than it has.
        """
        return self.padding[0] + self._slack(0), self.padding[1] + self._slack(1)

    @property
    def overlapping(self) -> bool:
        """Whether two windows can share an input element."""
        return self.stride[0] < self.kernel_size[0] or self.stride[1] < self.kernel_size[1]

    def is_whole_plane(self, height: int, width: int) -> bool:
        """Whether the only window is known to be a plane of this size, no more and no less."""
        for kernel, length in zip(self.kernel_size, (height, width), strict=True):
            # To compare a number with a symbol would be a question about the symbol.
            if isinstance(kernel, int) != isinstance(length, int) or kernel != length:
                return False
        return not isinstance(self.padding[0], torch.Tensor) and self.padding == (0, 0)

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
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    ceil_mode: bool = False,
) -> PoolGeometry:
    """Checks pooling arguments and returns them as a :class:`PoolGeometry`.

    Args:
        kernel_size: window size, an int or a (height, width) pair, each at least 1.
        stride: step between windows, likewise; ``None`` and ``()`` mean ``kernel_size``.
        padding: rows and columns of padding on each side, at most half the kernel.
        ceil_mode: round the output size up instead of down.

    Raises:
        TypeError: an argument is neither an int nor a pair of ints, or ``ceil_mode`` is no bool.
        ValueError: a value is out of its range.
    """
    kernel = _pair("kernel_size", kernel_size)
    step = kernel if stride is None or _is_empty(stride) else _pair("stride", stride)
    pad = _pair("padding", padding)
    if min(kernel) < 1:
        raise ValueError(f"kernel_size must be at least 1 in both directions, got {kernel_size}")
    if min(step) < 1:
        raise ValueError(f"stride must be at least 1 in both directions, got {stride}")
    if min(pad) < 0:
        raise ValueError(f"padding must not be negative, got {padding}")
    if pad[0] > kernel[0] // 2 or pad[1] > kernel[1] // 2:
        raise ValueError(
            f"padding must be at most half of kernel_size, got padding={padding} "
            f"with kernel_size={kernel_size}: use a larger kernel or less padding"
        )
    return PoolGeometry(kernel, step, pad, check_flag("ceil_mode", ceil_mode))


def check_flag(name: str, value: object) -> bool:
    """``value`` of the argument ``name`` as a bool, for which 0 and 1 do, too.

    Raises:
        TypeError: it is anything else.
    """
    if value is True or value is False:
        return value
    if isinstance(value, (str, tuple, list)) or value not in (0, 1):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _is_empty(value: object) -> bool:
    return isinstance(value, (tuple, list)) and not value


def _pair(name: str, value: object) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        if len(value) == 1:
            value = (value[0], value[0])
        if len(value) != 2:
            raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}")
        return _int(name, value[0], value), _int(name, value[1], value)
    both = _int(name, value, value)
    return both, both


def _int(name: str, item: Any, value: object) -> int:
    if type(item) is int:  # as nearly always, and this is asked on every call of a pooling
        return item
    if isinstance(item, bool) or not hasattr(item, "__index__"):
        raise TypeError(f"{name} must be an int or a pair of ints, got {value!r}")
    return operator.index(item)
