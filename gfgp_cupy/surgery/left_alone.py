"""Poolings that are left as they are, and why."""

from __future__ import annotations

from torch import Tensor, nn

from .window import Window

__all__ = ["reason_by_channels", "reason_by_kind", "reason_by_use"]

ELEMENT = "windows of one element, which leave nothing to learn"
GLOBAL = "global"
NO_CHANNELS = "maps of {} dimensions, of which none is sure to be the channels"
STRIDE_ONE = "stride 1 (stride_one=True replaces it)"

ADAPTIVE = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
LP = nn.LPPool1d, nn.LPPool2d, nn.LPPool3d
FRACTIONAL = nn.FractionalMaxPool2d, nn.FractionalMaxPool3d


def reason_by_kind(module: nn.Module) -> str | None:
    """Why a pooling of this kind is left alone, whatever its window; None for all else."""
    if isinstance(module, ADAPTIVE):
        size = module.output_size
        ones = all(length == 1 for length in (size if isinstance(size, tuple) else (size,)))
        return GLOBAL if ones else "adaptive: its windows depend on the map's size"
    if isinstance(module, LP):
        return "LP: a norm of each window, no mean"
    return "fractional: its windows are drawn" if isinstance(module, FRACTIONAL) else None


def reason_by_use(window: Window, inputs: list[Tensor], stride_one: bool = False) -> str | None:
    """Why a pooling of this window is left alone where its inputs are these; None if it is not.

    Args:
        window: its own.
        inputs: of its calls, [..., C, H, W]; none if it was not called.
        stride_one: as for :func:`gfgp_cupy.replace_pooling`.
    """
    ones = (1,) * window.axes
    if window.kernel_size == ones:
        return ELEMENT
    if inputs and all(window.covers(input) for input in inputs):
        return GLOBAL
    if any(input.dim() == window.axes + 1 for input in inputs):
        return NO_CHANNELS.format(("two", "three", "four")[window.axes - 1])
    return STRIDE_ONE if window.stride == ones and not stride_one else None


def reason_by_channels(channels: list[int], min_channels: int) -> str | None:
    """Why a pooling of these numbers of channels is left alone; None if it is not."""
    if channels and max(channels) < min_channels:
        return f"{max(channels)} channels, fewer than min_channels={min_channels}"
    return None
