"""What every pooling layer has: its window."""

from __future__ import annotations

import torch
from torch import nn

from .arguments import check_width
from .geometry import pool_geometry

__all__ = ["Pool2d"]


class Pool2d(nn.Module):
    """Base of the pooling layers: checks kernel, stride, padding and ceil mode and keeps them.

    Args:
        kernel_size: window size, an int or a (height, width) pair.
        stride: step between windows, likewise. Default: ``kernel_size``.
        padding: padding on each side, likewise, at most half the kernel. Never part of a window.
        ceil_mode: round the output size up instead of down.

    Attributes:
        kernel_size, stride, padding: (height, width) pairs.
        ceil_mode: as given.
    """

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode: bool = False) -> None:
        super().__init__()
        geometry = pool_geometry(kernel_size, stride, padding, ceil_mode)
        self.kernel_size = geometry.kernel_size
        self.stride = geometry.stride
        self.padding = geometry.padding
        self.ceil_mode = geometry.ceil_mode

    @property
    def window(self) -> tuple:
        """Kernel, stride, padding and ceil mode, in the order in which functions take them."""
        return self.kernel_size, self.stride, self.padding, self.ceil_mode

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"ceil_mode={self.ceil_mode}"
        )

    def _add_parameter(
        self,
        name: str,
        num_features: int | None,
        size: tuple[int, ...],
        learnable: bool,
        device,
        dtype,
    ) -> None:
        """Registers an uninitialised [1, num_features or 1, *size]: a Parameter if it is learned,
        otherwise a buffer."""
        if num_features is not None:
            check_width("num_features", num_features)
        self.num_features = num_features
        self.learnable = learnable
        tensor = torch.empty(1, num_features or 1, *size, device=device, dtype=dtype)
        if learnable:
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)
