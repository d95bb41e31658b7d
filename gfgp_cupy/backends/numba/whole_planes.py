"""Windows that are small whole planes, of contiguous tensors: pooled pixel by pixel, as
channels_last.

A row of windows that are whole planes has only one, and a small plane's elements leave vectors of
them (:mod:`.long_windows`) partly empty; in channels_last they are full of channels. To put
channels beside each other and their gradients back costs a copy of the input each, and leaves half
or less of the time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...geometry import PoolGeometry
from ...memory_format import layout_of

__all__ = ["by_channels", "by_planes", "is_better_by_channels"]

FEWEST_CHANNELS = 8
"""A vector full."""

FEWEST_ELEMENTS, MOST_ELEMENTS = 17, 100
"""Of a plane, for the copies to pay."""


def is_better_by_channels(input: Tensor, geometry: PoolGeometry) -> bool:
    """Whether :func:`by_channels` of the ``input`` is pooled sooner than itself."""
    sizes = input.shape[2:]
    return (
        geometry.kernel_size == sizes
        and input.shape[0] > 0  # what is empty counts as contiguous in every order
        and FEWEST_ELEMENTS <= sizes.numel() <= MOST_ELEMENTS
        and input.shape[1] >= FEWEST_CHANNELS
        and geometry.is_whole_plane(*sizes)
        and input.dim() == 4
        and layout_of(input) is torch.contiguous_format
    )


def by_channels(input: Tensor) -> Tensor:
    """A copy that lies in memory pixel by pixel."""
    samples, channels, height, width = input.shape
    # Dense for one sample, too, which a transposed copy is not. Of three axes, PyTorch copies three
    # times as fast as of four.
    pixels = input.new_empty(samples, height * width, channels)
    pixels.copy_(input.flatten(2).transpose(1, 2))
    return pixels.view(samples, height, width, channels).permute(0, 3, 1, 2)


def by_planes(gradient: Tensor) -> Tensor:
    """The inverse of :func:`by_channels`."""
    planes = gradient.new_empty(gradient.flatten(2).shape)
    for of_sample, pixels in zip(planes, gradient.flatten(2), strict=True):
        of_sample.copy_(pixels)  # of two axes, five times as fast as of all at once
    return planes.unflatten(2, gradient.shape[2:])
