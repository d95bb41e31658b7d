"""What every pooling layer has: its window."""

from __future__ import annotations

from typing import Any, NoReturn, cast

from torch import nn

from .axes import documentation
from .bins import Bins
from .geometry import Sizes, check_axes, check_flag
from .padding import window_geometry

__all__ = ["Pool2d"]


class Pool2d(nn.Module):
    """Base of the pooling layers: checks kernel, stride, padding and ceil mode and keeps them.

    Args:
        kernel_size: window size, an int or a (height, width) pair; or what
            :func:`gfgp_cupy.functional.adaptive_windows` makes of an output size.
        stride: step between windows, likewise. Default: ``kernel_size``.
        padding: padding on each side, likewise, at most half the kernel; or ``"same"``, see
            :func:`gfgp_cupy.functional.max_ent_pool2d`.
        ceil_mode: round the output size up instead of down.
        count_include_pad: whether the padding takes part, as zeros; otherwise it is part of no
            window.

    Attributes:
        axes: that windows have: 2. A layer's subclass for lines is ``class SoftPool1d(SoftPool2d,
            axes=1): ...``, that for volumes has 3; what they learn has as many dimensions as their
            input.
        kernel_size, stride, padding: a number for each axis, such as a (height, width) pair; or
            ``"same"``.
        ceil_mode, count_include_pad: as given.
        shown_of_window, shown: names of the attributes that the representation tells.
    """

    axes = 2
    shown_of_window: tuple[str, ...] = ("kernel_size", "stride", "padding", "ceil_mode")
    shown: tuple[str, ...] = ()
    count_include_pad = False  # of layers that were pickled before they had it

    def __init_subclass__(cls, axes: int | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if axes is not None:
            check_axes(axes)
            cls.axes = axes
            if cls.__doc__ is None:
                cls.__doc__ = documentation(cls.__base__, cls.__name__, axes)

    def __init__(
        self, kernel_size: int | Sizes, stride: int | Sizes | None = None,
        padding: int | Sizes | str = 0, ceil_mode: bool = False,
        count_include_pad: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if isinstance(kernel_size, Bins):
            self.kernel_size = self.stride = cast(Sizes, kernel_size.of_axes(self.axes))
            self.padding, self.ceil_mode = (0,) * self.axes, False
        else:
            geometry = window_geometry(kernel_size, stride, padding, ceil_mode, self.axes)
            self.kernel_size = geometry.kernel_size
            self.stride = geometry.stride
            self.padding = geometry.padding
            self.ceil_mode = geometry.ceil_mode
        self.count_include_pad = check_flag("count_include_pad", count_include_pad)

    @property
    def window(self) -> tuple[Sizes, Sizes, Sizes | str, bool]:
        """Kernel, stride, padding and ceil mode, in the order in which functions take them."""
        return self.kernel_size, self.stride, self.padding, self.ceil_mode

    def __prepare_scriptable__(self) -> NoReturn:
        """What ``torch.jit.script`` asks of every module of a network before it begins."""
        raise NotImplementedError(
            f"torch.jit.script cannot compile {type(self).__name__}: use torch.jit.trace(model, "
            "(images,)), which records it for images of any size, torch.export or torch.compile"
        )

    def extra_repr(self) -> str:
        counted = ("count_include_pad",) if self.count_include_pad else ()
        told = (*self.shown_of_window, *counted, *self.shown)
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in told)
