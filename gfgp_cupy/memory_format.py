"""The memory format an input is in, which its output and its gradient keep."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .torchscript import sizes_of

__all__ = ["dense", "in_layout", "layout_of", "new_dense"]


def layout_of(input: Tensor) -> torch.memory_format:
    """The memory format in which PyTorch's poolings return the output of 4-D or 5-D ``input``.

    ``torch.channels_last`` (of 5-D input ``torch.channels_last_3d``) where its strides grow in the
    order C, W, H, (D,) N, whether or not it is dense: slices of a channels_last tensor are of that
    kind. Strides that would do for both, as where all sizes but N are 1, and an empty tensor's mean
    ``torch.contiguous_format``. The rule is that of ``c10::TensorImpl``'s
    ``suggest_memory_format``.
    """
    sizes, strides = sizes_of(input), input.stride()
    if strides[1] == 0:
        return torch.contiguous_format
    least = 0
    for axis in (1, 3, 2, 0) if len(sizes) == 4 else (1, 4, 3, 2, 0):
        stride = strides[axis]
        if sizes[axis] == 0 or stride < least or (axis == 0 and least == strides[1]):
            return torch.contiguous_format
        least = stride * sizes[axis]
    return torch.channels_last if len(sizes) == 4 else torch.channels_last_3d


def in_layout(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """4-D or 5-D ``tensor``, in ``layout``: as ``tensor.contiguous(memory_format=layout)``, which
    torch.vmap refuses but for one of them."""
    if layout is torch.contiguous_format:
        return tensor.contiguous()
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def dense(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """``tensor`` with the strides of a new one in ``layout``, on axes of size 1, too."""
    if tensor.stride() == _strides(tensor.shape, layout):
        return tensor
    return new_dense(tensor, tensor.shape, layout).copy_(tensor)


def new_dense(
    like: Tensor,
    shape: Sequence[int],
    layout: torch.memory_format,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """A new 4-D or 5-D tensor in ``layout``, of the device of ``like``, and of its type if no other
    is given.

    By its strides: to name a memory format takes PyTorch longer than all else about a new tensor.
    """
    return like.new_empty_strided(shape, _strides(shape, layout), dtype=dtype)


def _strides(shape: Sequence[int], layout: torch.memory_format) -> tuple[int, ...]:
    if len(shape) == 4:
        _, channels, height, width = shape
        if layout is torch.channels_last:
            return channels * height * width, 1, channels * width, channels
        return channels * height * width, height * width, width, 1
    _, channels, depth, height, width = shape
    plane = height * width
    if layout is torch.channels_last_3d:
        return channels * depth * plane, 1, channels * plane, channels * width, channels
    return channels * depth * plane, depth * plane, plane, width, 1
