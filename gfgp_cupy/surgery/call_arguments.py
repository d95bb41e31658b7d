"""What a call of a pooling function asks for, whichever way its arguments are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry import Sizes, is_empty
from ..torchscript import sizes_of
from .equivalents import AVERAGES, MAXIMA

__all__ = ["CALLS", "PoolingCall", "covers_the_map", "read_call"]


INTS = (int, np.integer)


class PoolingCall(NamedTuple):
    """A call's arguments but for the input, with PyTorch's defaults resolved.

    Attributes:
        kind: ``"max"``, ``"avg"`` or ``"lp"``.
        kernel_size, stride, padding, dilation: a number for each axis, such as (height, width).
        ceil_mode, return_indices, count_include_pad, divisor_override, norm_type: as PyTorch's
            functions take them; what a function does not take is at its default.
    """

    kind: str
    kernel_size: Sizes
    stride: Sizes
    padding: Sizes
    ceil_mode: bool = False
    dilation: Sizes = ()
    return_indices: bool = False
    count_include_pad: bool = False
    divisor_override: int | None = None
    norm_type: float | None = None

    # Named tuples' properties cannot be compiled by PyTorch 2.6, and methods can.
    def as_module(self) -> nn.Module:
        """The module of PyTorch that does the same."""
        window = (self.kernel_size, self.stride, self.padding)
        kinds: dict[str, Any] = {"max": MAXIMA, "avg": AVERAGES, "lp": (None, nn.LPPool2d)}
        of_axes = kinds[self.kind][len(self.kernel_size) - 1]
        if self.kind == "max":
            return of_axes(*window, self.dilation, self.return_indices, self.ceil_mode)
        if self.kind == "lp":
            return of_axes(self.norm_type, self.kernel_size, self.stride, self.ceil_mode)
        # An average of lines takes none.
        divisor = () if self.divisor_override is None else (self.divisor_override,)
        return of_axes(*window, self.ceil_mode, self.count_include_pad, *divisor)


def covers_the_map(call: PoolingCall, input: Tensor) -> bool:
    """Whether the window is the whole of each map of ``input``, as a global pooling's is."""
    axes = len(call.kernel_size)
    return call.padding == (0,) * axes and call.kernel_size == tuple(sizes_of(input)[-axes:])


def _max_pool(
    axes: int, input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> tuple[Tensor, PoolingCall | None]:  # fmt: skip
    kernel, step = _sizes(axes, kernel_size), _stride(axes, stride, kernel_size)
    pad, gap = _sizes(axes, padding), _sizes(axes, dilation)
    if kernel is None or step is None or pad is None or gap is None:
        return input, None
    return input, PoolingCall("max", kernel, step, pad, ceil_mode, gap, return_indices)


def _max_pool_with_indices(
    axes: int, input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = True,
) -> tuple[Tensor, PoolingCall | None]:  # fmt: skip
    # It returns them whatever return_indices is.
    return _max_pool(axes, input, kernel_size, stride, padding, dilation, ceil_mode, True)


def _avg_pool(
    axes: int, input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> tuple[Tensor, PoolingCall | None]:  # fmt: skip
    kernel, step = _sizes(axes, kernel_size), _stride(axes, stride, kernel_size)
    pad = _sizes(axes, padding)
    if kernel is None or step is None or pad is None:
        return input, None
    counts = count_include_pad and pad != (0,) * axes
    return input, PoolingCall(
        "avg", kernel, step, pad, ceil_mode,
        count_include_pad=counts, divisor_override=divisor_override,
    )  # fmt: skip


def _lp_pool(
    axes: int, input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None,
    ceil_mode: bool = False,
) -> tuple[Tensor, PoolingCall | None]:  # fmt: skip
    kernel, step = _sizes(axes, kernel_size), _stride(axes, stride, kernel_size)
    if kernel is None or step is None:
        return input, None
    return input, PoolingCall("lp", kernel, step, (0,) * axes, ceil_mode, norm_type=norm_type)


def _stride(axes: int, stride: Any, kernel_size: Any) -> Sizes | None:
    return _sizes(axes, kernel_size if stride is None or is_empty(stride) else stride)


def _sizes(axes: int, value: Any) -> Sizes | None:
    """``value`` for each axis; None if it is known when the network runs alone."""
    if isinstance(value, INTS):
        value = (value,)
    if isinstance(value, (tuple, list)) and (len(value) == 1 or len(value) == axes):
        values = tuple(value) if len(value) == axes else (value[0],) * axes
        # A list: PyTorch 2.6 does not compile a generator.
        if all([isinstance(each, INTS) for each in values]):  # noqa: C419
            return tuple([int(each) if isinstance(each, np.integer) else each for each in values])
    return None


Reader = Callable[..., tuple[Tensor, PoolingCall | None]]

CALLS: dict[Callable[..., Any], tuple[Reader, int]] = {
    F.max_pool1d: (_max_pool, 1),
    F.max_pool2d: (_max_pool, 2),
    F.max_pool3d: (_max_pool, 3),
    F.max_pool1d_with_indices: (_max_pool_with_indices, 1),
    F.max_pool2d_with_indices: (_max_pool_with_indices, 2),
    F.max_pool3d_with_indices: (_max_pool_with_indices, 3),
    torch.max_pool1d: (_max_pool, 1),
    torch.max_pool2d: (_max_pool, 2),
    torch.max_pool3d: (_max_pool, 3),
    F.avg_pool1d: (_avg_pool, 1),
    F.avg_pool2d: (_avg_pool, 2),
    F.avg_pool3d: (_avg_pool, 3),
    F.lp_pool2d: (_lp_pool, 2),
}
"""The functions whose calls can be replaced, each with its reader and how many axes it pools."""


def read_call(
    function: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any]
) -> tuple[Tensor, PoolingCall | None]:
    """The input of a call of one of :data:`CALLS`, and its other arguments; None if numbers in
    those are not known yet: under ``torch.fx`` and ``torch.jit.trace``, those that depend on the
    size of the image."""
    reader, axes = CALLS[function]
    return reader(axes, *args, **kwargs)
