"""The layers under the names and arguments of the published implementations.

In place of ``from modules.mylayers import MaxEntPoolingCuda2d`` of https://github.com/tk1980/GFGP
and ``… import GaussianPoolingCuda2d`` of https://github.com/tk1980/GaussianPooling. They compute
what their base classes compute, on any device. Their state dicts have the published tensor names
(``ToParam.1.weight``), in the published order, and take both these and our own.
"""

from __future__ import annotations

import torch
from torch.types import Device

from .gaussian import LEAST_VARIANCE
from .layers import GFGPMaxEntPool2d
from .poolings.gaussian import GFGPGaussianPool2d
from .published_names import save_published_names

__all__ = ["GaussianPooling2d", "GaussianPoolingCuda2d", "MaxEntPoolingCuda2d"]


class HiddenNode:
    """``hidden_features`` by its published name, under which it is an argument."""

    hidden_features: int

    @property
    def hidden_node(self) -> int:
        return self.hidden_features


class MaxEntPoolingCuda2d(HiddenNode, GFGPMaxEntPool2d):
    """:class:`GFGPMaxEntPool2d` under the published implementation's name and arguments.

    ``hidden_node`` is ``hidden_features``. The state dict has the published tensor names.

    Example:
        >>> pool = MaxEntPoolingCuda2d(num_features=64, kernel_size=2, stride=2, hidden_node=16)
        >>> pool(torch.randn(8, 64, 28, 28)).shape
        torch.Size([8, 64, 14, 14])
        >>> pool.ToParam[1].weight.shape
        torch.Size([16, 64, 1, 1])
    """

    shown = ("activation", "hidden_node")

    def __init__(
        self, num_features: int, kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None, padding: int | tuple[int, int] | str = 0,
        ceil_mode: bool = False, activation: str = "sigmoid", hidden_node: int | None = None,
        device: Device = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, kernel_size, stride, padding, ceil_mode, activation=activation,
            hidden_features=hidden_node, device=device, dtype=dtype,
        )  # fmt: skip
        save_published_names(self)


class GaussianPoolingCuda2d(HiddenNode, GFGPGaussianPool2d):
    """:class:`GFGPGaussianPool2d` under the published implementation's name and arguments.

    ``hidden_node`` is ``hidden_features``; by default there is a random number for each window
    (``"HWCN"``). The published kernel's least variance is 1e-6 whatever ``eps`` says; here ``eps``
    counts. The state dict has the published tensor names.

    Example:
        >>> pool = GaussianPoolingCuda2d(num_features=64, kernel_size=2, stochasticity="CN")
        >>> pool(torch.randn(8, 64, 28, 28)).shape
        torch.Size([8, 64, 14, 14])
        >>> pool.ToSigma[0].weight.shape
        torch.Size([64, 32, 1, 1])
    """

    shown = ("hidden_node", "stochasticity", "eps")

    def __init__(
        self, num_features: int, kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None, padding: int | tuple[int, int] | str = 0,
        ceil_mode: bool = False, count_include_pad: bool = False, hidden_node: int | None = None,
        stochasticity: str | None = "HWCN", eps: float = LEAST_VARIANCE, device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, kernel_size, stride, padding, ceil_mode, hidden_features=hidden_node,
            stochasticity=stochasticity, count_include_pad=count_include_pad, eps=eps,
            device=device, dtype=dtype,
        )  # fmt: skip
        save_published_names(self)


class GaussianPooling2d(GaussianPoolingCuda2d):
    """:class:`GaussianPoolingCuda2d`, but that it counts the padding by default, as published.

    Example:
        >>> pool = GaussianPooling2d(num_features=64, kernel_size=3, stride=2, padding=1)
        >>> pool(torch.randn(8, 64, 28, 28)).shape
        torch.Size([8, 64, 14, 14])
    """

    def __init__(
        self, num_features: int, kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None, padding: int | tuple[int, int] | str = 0,
        ceil_mode: bool = False, count_include_pad: bool = True, hidden_node: int | None = None,
        stochasticity: str | None = "HWCN", eps: float = LEAST_VARIANCE, device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, kernel_size, stride, padding, ceil_mode, count_include_pad, hidden_node,
            stochasticity, eps, device, dtype,
        )  # fmt: skip
