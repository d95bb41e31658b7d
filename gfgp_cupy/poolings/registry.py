"""The poolings by name, and the one factory that makes them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import nn
from torch.types import Device

from ..bins import Bins
from ..choices import check_choice
from ..geometry import Sizes, check_axes
from ..layers import GFGPMaxEntPool2d, MaxEntPool2d
from .ada import AdaPool2d, EDSCWPool2d, GFGPAdaPool2d
from .gated import GatedPool2d, GFGPGatedPool2d
from .gaussian import GaussianPool2d, GFGPGaussianPool2d
from .generalized_mean import GeneralizedMeanPool2d, GFGPGeneralizedMeanPool2d
from .log_sum_exp import GFGPLogSumExpPool2d, LogSumExpPool2d
from .mixed import GFGPMixedPool2d, MixedPool2d
from .soft import SoftPool2d

__all__ = ["WindowNotServed", "create_pooling", "list_poolings"]

OF_PYTORCH = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
WITHOUT_TENSORS = {**OF_PYTORCH, "soft": SoftPool2d, "edscw": EDSCWPool2d}

OF_CHANNELS = {
    "max_ent": GFGPMaxEntPool2d,
    "max_ent_unguided": MaxEntPool2d,
    "gauss": GFGPGaussianPool2d,
    "gauss_unguided": GaussianPool2d,
    "ada": AdaPool2d,
    "gfgp_ada": GFGPAdaPool2d,
    "mixed": MixedPool2d,
    "gfgp_mixed": GFGPMixedPool2d,
    "gated": GatedPool2d,
    "gfgp_gated": GFGPGatedPool2d,
    "gem": GeneralizedMeanPool2d,
    "gfgp_gem": GFGPGeneralizedMeanPool2d,
    "lse": LogSumExpPool2d,
    "gfgp_lse": GFGPLogSumExpPool2d,
}


class WindowNotServed(ValueError):
    """A pooling has no windows such as it was asked for.

    Attributes:
        reason: why, without the way out, which the message has, too.
    """

    def __init__(self, reason: str, way_out: str) -> None:
        super().__init__(reason, way_out)
        self.reason = reason

    def __str__(self) -> str:
        return ": ".join(self.args)


def list_poolings() -> list[str]:
    """The names that :func:`create_pooling` takes.

    Example:
        >>> list_poolings()[:4]
        ['max', 'avg', 'soft', 'edscw']
    """
    return [*WITHOUT_TENSORS, *OF_CHANNELS]


def create_pooling(
    pool: str,
    num_features: int,
    kernel_size: int | Sizes,
    stride: int | Sizes | None = None,
    padding: int | Sizes | str = 0,
    ceil_mode: bool = False,
    count_include_pad: bool | None = None,
    device: Device = None,
    dtype: torch.dtype | None = None,
    axes: int = 2,
) -> nn.Module:
    """A pooling layer by name, for input [N, num_features, H, W].

    Where a pooling learns a parameter of its own, it is one a channel. ``"max"`` and ``"avg"`` are
    PyTorch's own layers: they have no ``padding="same"``, and in a maximum padding cannot count.

    Args:
        pool: one of :func:`list_poolings`.
        num_features: number of channels C.
        kernel_size: window size, an int or a (height, width) pair.
        stride: step between windows, likewise. Default: ``kernel_size``.
        padding: padding on each side, likewise, at most half the kernel; or ``"same"``, see
            :func:`gfgp_cupy.functional.max_ent_pool2d`.
        ceil_mode: round the output size up instead of down.
        count_include_pad: whether the padding takes part, as zeros. Default: in ``"avg"``, as is
            PyTorch's default, and in no other pooling.
        device, dtype: of the layer's tensors, if it has any.
        axes: that the windows have: 1 for input [N, num_features, L], 3 for
            [N, num_features, D, H, W].

    Raises:
        ValueError: an unknown ``pool`` (the message gives the close ones), an argument out of
            range, or one that ``"max"`` or ``"avg"`` does not have.

    Example:
        >>> create_pooling("gem", num_features=64, kernel_size=2).p.shape
        torch.Size([1, 64, 1, 1])
    """
    check_choice("pool", pool, list_poolings())
    window = {
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
        "ceil_mode": ceil_mode,
    }
    if pool in OF_PYTORCH:
        _check_pytorch_has(pool, kernel_size, padding, count_include_pad)
    if pool != "max":
        window["count_include_pad"] = (
            pool == "avg" if count_include_pad is None else count_include_pad
        )
    if pool in WITHOUT_TENSORS:
        return _of_axes(pool, WITHOUT_TENSORS[pool], axes)(**window)
    layer = _of_axes(pool, OF_CHANNELS[pool], axes)
    return layer(num_features=num_features, **window, device=device, dtype=dtype)


def _check_pytorch_has(
    pool: str, kernel_size: int | Sizes, padding: int | Sizes | str, count_include_pad: bool | None
) -> None:
    layer = OF_PYTORCH[pool].__name__
    if isinstance(kernel_size, Bins):
        raise WindowNotServed(
            f"pool={pool!r} is torch.nn.{layer}, which has no adaptive_windows",
            f"take torch.nn.Adaptive{layer}, or a pooling of this library, such as 'mixed'",
        )
    if isinstance(padding, str):
        raise WindowNotServed(
            f"pool={pool!r} is torch.nn.{layer}, which has no padding={padding!r}",
            "pad the input, or take a pooling of this library, such as 'mixed'",
        )
    if pool == "max" and count_include_pad:
        raise WindowNotServed(
            f"pool='max' is torch.nn.{layer}, whose padding never counts",
            f"leave out count_include_pad={count_include_pad!r}, or take a pooling of this "
            "library, such as 'mixed'",
        )


def _of_axes(pool: str, layer: type[nn.Module], axes: int) -> Callable[..., nn.Module]:
    """The class of ``layer`` for windows of so many axes, which is beside it."""
    check_axes(axes)
    module = nn if pool in OF_PYTORCH else sys.modules[layer.__module__]
    return getattr(module, layer.__name__.replace("2d", f"{axes}d"))
