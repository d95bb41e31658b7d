"""Max-Ent pooling to an output of a given size, of whole planes above all."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import nn
from torch.types import Device

from .bins import Bins, adaptive_windows
from .geometry import Sizes
from .layers import GFGPMaxEntPool2d, MaxEntPool2d

__all__ = [
    "Adaptive",
    "AdaptiveMaxEntPool1d",
    "AdaptiveMaxEntPool2d",
    "AdaptiveMaxEntPool3d",
    "GFGPAdaptiveMaxEntPool1d",
    "GFGPAdaptiveMaxEntPool2d",
    "GFGPAdaptiveMaxEntPool3d",
    "GFGPGlobalMaxEntPool1d",
    "GFGPGlobalMaxEntPool2d",
    "GFGPGlobalMaxEntPool3d",
    "GlobalMaxEntPool1d",
    "GlobalMaxEntPool2d",
    "GlobalMaxEntPool3d",
]

Size = int | None | tuple[int | None, ...]


class Adaptive:
    """What a pooling layer with :func:`gfgp_cupy.functional.adaptive_windows` is told apart by.

    Attributes:
        output_size: of the output a size for each axis, such as height and width; ``None`` for that
            of the input.
    """

    shown_of_window = ("output_size",)
    axes: int
    kernel_size: Sizes
    stride: Sizes

    @property
    def output_size(self) -> tuple[int | None, ...]:
        assert isinstance(self.kernel_size, Bins)
        return self.kernel_size.sizes()

    @output_size.setter
    def output_size(self, size: Size) -> None:
        bins = cast(Bins, adaptive_windows(size)).of_axes(self.axes)
        self.kernel_size = self.stride = cast(Sizes, bins)


class AdaptiveMaxEntPool2d(Adaptive, MaxEntPool2d):
    """Maximum-entropy pooling to an output of ``output_size``, with a λ of its own.

    Its windows are those of ``torch.nn.AdaptiveAvgPool2d``, whose place it takes; λ = 0 is average
    pooling, λ → ∞ max pooling. See :func:`gfgp_cupy.functional.max_ent_pool2d` for the formula.

    Args:
        output_size: height and width of the output, an int or a pair; ``None`` for that of the
            input.
        num_features, init_lambda, learnable, device, dtype: as in :class:`MaxEntPool2d`.

    Shape:
        - input: [N, C, H, W] or [C, H, W].
        - output: [N, C, oH, oW] or [C, oH, oW].

    Raises:
        TypeError, ValueError: as :func:`gfgp_cupy.functional.adaptive_max_ent_pool2d`.

    Example:
        >>> AdaptiveMaxEntPool2d((2, 3), num_features=16)(torch.randn(8, 16, 7, 9)).shape
        torch.Size([8, 16, 2, 3])
    """

    def __init__(
        self, output_size: Size, num_features: int | None = None, init_lambda: float = 1.0,
        learnable: bool = True, device: Device = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            adaptive_windows(output_size), num_features=num_features, init_lambda=init_lambda,
            learnable=learnable, device=device, dtype=dtype,
        )  # fmt: skip


class GlobalMaxEntPool2d(AdaptiveMaxEntPool2d):
    """Maximum-entropy pooling of whole planes, with a λ of its own: a network's last pooling.

    :class:`AdaptiveMaxEntPool2d` with ``output_size=1``; see there.

    Example:
        >>> GlobalMaxEntPool2d(num_features=16)(torch.randn(8, 16, 7, 7)).shape
        torch.Size([8, 16, 1, 1])
    """

    shown_of_window = ()

    def __init__(
        self, num_features: int | None = None, init_lambda: float = 1.0, learnable: bool = True,
        device: Device = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(1, num_features, init_lambda, learnable, device, dtype)


class GFGPAdaptiveMaxEntPool2d(Adaptive, GFGPMaxEntPool2d):
    """Guided maximum-entropy pooling to an output of ``output_size``.

    The windows are those of ``torch.nn.AdaptiveAvgPool2d``; all else is as in
    :class:`GFGPMaxEntPool2d`.

    Args:
        num_features: number of channels C.
        output_size: as in :class:`AdaptiveMaxEntPool2d`.
        activation, hidden_features, norm_layer, device, dtype: as in :class:`GFGPMaxEntPool2d`.

    Shape:
        - input: [N, C, H, W], or [C, H, W] in evaluation mode.
        - output: [N, C, oH, oW] or [C, oH, oW], of ``output_size``.

    Raises:
        TypeError, ValueError: ``output_size`` is no size, or a width is no int or below 1; in a
            call also as :func:`gfgp_cupy.functional.guided_max_ent_pool2d`, and where a head's
            BatchNorm would train on a single sample.

    Example:
        >>> GFGPAdaptiveMaxEntPool2d(16, output_size=3)(torch.randn(8, 16, 9, 9)).shape
        torch.Size([8, 16, 3, 3])
    """

    def __init__(
        self, num_features: int, output_size: Size, activation: str = "sigmoid",
        hidden_features: int | None = None, norm_layer: Callable[[int], nn.Module] | None = None,
        device: Device = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, adaptive_windows(output_size), activation=activation,
            hidden_features=hidden_features, norm_layer=norm_layer, device=device, dtype=dtype,
        )  # fmt: skip


class GFGPGlobalMaxEntPool2d(GFGPAdaptiveMaxEntPool2d):
    """Guided maximum-entropy pooling of whole planes: a network's last pooling.

    :class:`GFGPAdaptiveMaxEntPool2d` with ``output_size=1``.

    Example:
        >>> GFGPGlobalMaxEntPool2d(16)(torch.randn(8, 16, 7, 7)).shape
        torch.Size([8, 16, 1, 1])
    """

    shown_of_window = ()

    def __init__(
        self, num_features: int, activation: str = "sigmoid", hidden_features: int | None = None,
        norm_layer: Callable[[int], nn.Module] | None = None, device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(num_features, 1, activation, hidden_features, norm_layer, device, dtype)


class AdaptiveMaxEntPool1d(AdaptiveMaxEntPool2d, axes=1): ...


class AdaptiveMaxEntPool3d(AdaptiveMaxEntPool2d, axes=3): ...


class GlobalMaxEntPool1d(GlobalMaxEntPool2d, axes=1): ...


class GlobalMaxEntPool3d(GlobalMaxEntPool2d, axes=3): ...


class GFGPAdaptiveMaxEntPool1d(GFGPAdaptiveMaxEntPool2d, axes=1): ...


class GFGPAdaptiveMaxEntPool3d(GFGPAdaptiveMaxEntPool2d, axes=3): ...


class GFGPGlobalMaxEntPool1d(GFGPGlobalMaxEntPool2d, axes=1): ...


class GFGPGlobalMaxEntPool3d(GFGPGlobalMaxEntPool2d, axes=3): ...
