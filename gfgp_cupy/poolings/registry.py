"""The poolings by name, and the one factory that makes them."""

from __future__ import annotations

import torch
from torch import nn
from torch.types import Device

from ..choices import check_choice
from ..layers import GFGPMaxEntPool2d, MaxEntPool2d
from .gated import GatedPool2d, GFGPGatedPool2d
from .generalized_mean import GeneralizedMeanPool2d, GFGPGeneralizedMeanPool2d
from .log_sum_exp import GFGPLogSumExpPool2d, LogSumExpPool2d
from .mixed import GFGPMixedPool2d, MixedPool2d
from .soft import SoftPool2d

__all__ = ["create_pooling", "list_poolings"]

WITHOUT_TENSORS = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d, "soft": SoftPool2d}

OF_CHANNELS = {
    "max_ent": GFGPMaxEntPool2d,
    "max_ent_unguided": MaxEntPool2d,
    "mixed": MixedPool2d,
    "gfgp_mixed": GFGPMixedPool2d,
    "gated": GatedPool2d,
    "gfgp_gated": GFGPGatedPool2d,
    "gem": GeneralizedMeanPool2d,
    "gfgp_gem": GFGPGeneralizedMeanPool2d,
    "lse": LogSumExpPool2d,
    "gfgp_lse": GFGPLogSumExpPool2d,
}


def list_poolings() -> list[str]:
    """The names that :func:`create_pooling` takes.

    Example:
        >>> list_poolings()[:4]
        ['max', 'avg', 'soft', 'max_ent']
    """
    return [*WITHOUT_TENSORS, *OF_CHANNELS]


def create_pooling(
    pool: str,
    num_features: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    ceil_mode: bool = False,
    device: Device = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """A pooling layer by name, for input [N, num_features, H, W].

    Where a pooling learns a parameter of its own, it is one a channel. ``"avg"`` is PyTorch's
    default, which counts the padding in its mean; no other pooling does.

    Args:
        pool: one of :func:`list_poolings`.
        num_features: number of channels C.
        kernel_size: window size, an int or a (height, width) pair.
        stride: step between windows, likewise. Default: ``kernel_size``.
        padding: padding on each side, likewise, at most half the kernel.
        ceil_mode: round the output size up instead of down.
        device, dtype: of the layer's tensors, if it has any.

    Raises:
        ValueError: an unknown ``pool`` (the message gives the close ones), or an argument out of
            range.

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
    if pool in WITHOUT_TENSORS:
        return WITHOUT_TENSORS[pool](**window)
    return OF_CHANNELS[pool](num_features=num_features, **window, device=device, dtype=dtype)
