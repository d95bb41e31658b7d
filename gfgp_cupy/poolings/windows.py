"""The windows of a feature map as a tensor, for poolings written in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import PoolGeometry
from ..memory_format import layout_of

__all__ = ["pad_to_windows", "windows"]


def windows(input: Tensor, geometry: PoolGeometry) -> tuple[Tensor, Tensor]:
    """The elements of each window, and which of them lie inside the input.

    The element's number in the window comes first: sums over it then run along whole planes,
    which PyTorch does much faster than many sums over a few neighbours.

    Returns:
        A tensor [kH · kW, N, C, oH, oW] made of [N, C, H, W] ``input``, zero where windows reach
        past it; and a bool mask [kH · kW, 1, 1, oH, oW] that is false there.

    Example:
        >>> geometry = PoolGeometry((2, 2), stride=(2, 2), padding=(0, 0), ceil_mode=True)
        >>> elements, inside = windows(torch.arange(1.0, 10).reshape(1, 1, 3, 3), geometry)
        >>> elements[:, 0, 0, 0, 1]
        tensor([3., 0., 6., 0.])
        >>> inside[:, 0, 0, 0, 1]
        tensor([ True, False,  True, False])
    """
    mask = torch.ones(1, 1, *input.shape[2:], dtype=torch.bool, device=input.device)
    return _unfolded(input, geometry), _unfolded(mask, geometry)


def pad_to_windows(input: Tensor, geometry: PoolGeometry) -> Tensor:
    """``input`` with zeros on every side on which a window reaches past it."""
    top, left = geometry.padding
    bottom, right = geometry.overhang(*input.shape[2:])
    if not (top or left or bottom or right):
        return input
    return F.pad(input, (left, right, top, bottom))


def _unfolded(input: Tensor, geometry: PoolGeometry) -> Tensor:
    (kernel_h, kernel_w), (stride_h, stride_w) = geometry.kernel_size, geometry.stride
    padded = pad_to_windows(input, geometry)
    if layout_of(input) is torch.channels_last:
        # The gradient of an unfolded tensor is contiguous: here in this order of its axes.
        last = padded.permute(0, 2, 3, 1)
        view = last.unfold(1, kernel_h, stride_h).unfold(2, kernel_w, stride_w)
        return view.permute(4, 5, 0, 1, 2, 3).flatten(0, 1).permute(0, 1, 4, 2, 3)
    view = padded.unfold(2, kernel_h, stride_h).unfold(3, kernel_w, stride_w)
    return view.permute(4, 5, 0, 1, 2, 3).flatten(0, 1)
