"""What a call of a pooling function asks for, whichever way its arguments are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..torchscript import sizes_of

__all__ = ["CALLS", "PoolingCall", "covers_the_map"]

Pair = tuple[int, int]


class PoolingCall(NamedTuple):
    """A call's arguments but for the input, with PyTorch's defaults resolved.

    Attributes:
        kind: ``"max"``, ``"avg"`` or ``"lp"``.
        kernel_size, stride, padding, dilation: (height, width) pairs.
        ceil_mode, return_indices, count_include_pad, divisor_override, norm_type: as PyTorch's
            functions take them; what a function does not take is at its default.
    """

    kind: str
    kernel_size: Pair
    stride: Pair
    padding: Pair = (0, 0)
    ceil_mode: bool = False
    dilation: Pair = (1, 1)
    return_indices: bool = False
    count_include_pad: bool = False
    divisor_override: int | None = None
    norm_type: float | None = None

    # Named tuples' properties cannot be compiled by PyTorch 2.6, and methods can.
    def as_module(self) -> nn.Module:
        """The module of PyTorch that does the same."""
        kernel, stride, padding = self.kernel_size, self.stride, self.padding
        if self.kind == "max":
            return nn.MaxPool2d(
                kernel, stride, padding, self.dilation, self.return_indices, self.ceil_mode
            )
        if self.kind == "lp":
            assert self.norm_type is not None
            return nn.LPPool2d(self.norm_type, kernel, stride, self.ceil_mode)
        return nn.AvgPool2d(
            kernel, stride, padding, self.ceil_mode, self.count_include_pad, self.divisor_override
        )


def covers_the_map(call: PoolingCall, input: Tensor) -> bool:
    """Whether the window is the whole of each map of ``input``, as a global pooling's is."""
    height, width = sizes_of(input)[-2:]
    return call.padding == (0, 0) and call.kernel_size == (height, width)


def _max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> tuple[Tensor, PoolingCall | None]:  # fmt: skip
    kernel, step = _pair(kernel_size), _stride(stride, kernel_size)
    pad, gap = _pair(padding), _pair(dilation)
    if kernel is None or step is None or pad is None or gap is None:
        return input, None
    return input, PoolingCall("max", kernel, step, pad, ceil_mode, gap, return_indices)


def _max_pool2d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = True,
) -> tuple[Tensor, PoolingCall | None]:  # fmt: skip
    # It returns them whatever return_indices is.
    return _max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


def _avg_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> tuple[Tensor, PoolingCall | None]:  # fmt: skip
    kernel, step, pad = _pair(kernel_size), _stride(stride, kernel_size), _pair(padding)
    if kernel is None or step is None or pad is None:
        return input, None
    counts = count_include_pad and pad != (0, 0)
    return input, PoolingCall(
        "avg", kernel, step, pad, ceil_mode,
        count_include_pad=counts, divisor_override=divisor_override,
    )  # fmt: skip


def _lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> tuple[Tensor, PoolingCall | None]:
    kernel, step = _pair(kernel_size), _stride(stride, kernel_size)
    if kernel is None or step is None:
        return input, None
    return input, PoolingCall("lp", kernel, step, ceil_mode=ceil_mode, norm_type=norm_type)


def _stride(stride: Any, kernel_size: Any) -> Pair | None:
    empty = stride is None or (isinstance(stride, (tuple, list)) and len(stride) == 0)
    return _pair(kernel_size if empty else stride)


def _pair(value: Any) -> Pair | None:
    """``value`` for height and width; None if it is known when the network runs alone."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, (tuple, list)) and len(value) in (1, 2):
        first, last = value[0], value[-1]
        if isinstance(first, int) and isinstance(last, int):
            return first, last
    return None


Reader = Callable[..., tuple[Tensor, PoolingCall | None]]

CALLS: dict[Callable[..., Any], Reader] = {
    F.max_pool2d: _max_pool2d,
    F.max_pool2d_with_indices: _max_pool2d_with_indices,
    torch.max_pool2d: _max_pool2d,
    F.avg_pool2d: _avg_pool2d,
    F.lp_pool2d: _lp_pool2d,
}
"""The functions whose calls can be replaced. Given a call's arguments, each reader returns the
input, and the rest as a :class:`PoolingCall`, or None if numbers in it are not known yet: under
``torch.fx`` and ``torch.jit.trace``, those that depend on the size of the image."""
