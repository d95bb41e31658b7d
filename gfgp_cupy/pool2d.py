"""What every pooling layer has: its window."""

from __future__ import annotations

from typing import NoReturn

from torch import nn

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
        shown: names of the attributes that the representation tells after these.
    """

    shown: tuple[str, ...] = ()

    def __init__(
        self, kernel_size: int | tuple[int, int], stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        geometry = pool_geometry(kernel_size, stride, padding, ceil_mode)
        self.kernel_size = geometry.kernel_size
        self.stride = geometry.stride
        self.padding = geometry.padding
        self.ceil_mode = geometry.ceil_mode

    @property
    def window(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], bool]:
        """Kernel, stride, padding and ceil mode, in the order in which functions take them."""
        return self.kernel_size, self.stride, self.padding, self.ceil_mode

    def __prepare_scriptable__(self) -> NoReturn:
        """What ``torch.jit.script`` asks of every module of a network before it begins."""
        raise NotImplementedError(
            f"torch.jit.script cannot compile {type(self).__name__}: use torch.jit.trace(model, "
            "(images,)), which records it for images of any size, torch.export or torch.compile"
        )

    def extra_repr(self) -> str:
        told = ("kernel_size", "stride", "padding", "ceil_mode", *self.shown)
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in told)
