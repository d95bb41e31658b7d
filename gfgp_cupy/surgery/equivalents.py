"""Which poolings and convolutions have an equivalent, and the reason against the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .subclass_windows import window_by_trial
from .window import Window, window_of

__all__ = [
    "AVERAGES",
    "MAXIMA",
    "axes_of",
    "equivalent_window",
    "reason_against_conv",
    "reason_against_inputs",
]

MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
"""By their number of axes."""

OWN_FORWARD = "has a forward of its own, which may do anything"
INFINITE = (
    "is given a map that was padded or filled with infinity, whose weighted means are NaN (what a "
    "pooling pads by its own padding= takes no part in the mean)"
)


def axes_of(cls: type[nn.Module]) -> int:
    """How many axes the windows of a maximum or an average, of this class, have."""
    kinds = enumerate(zip(MAXIMA, AVERAGES, strict=True), 1)
    return next(axes for axes, kind in kinds if issubclass(cls, kind))


def equivalent_window(module: Any) -> Window | str:
    """The window by which a new pooling does what ``module`` does, or the reason against one."""
    cls = type(module)
    axes = axes_of(cls)
    if isinstance(module, MAXIMA):
        base = MAXIMA[axes - 1]
        if set(_numbers(module.dilation)) != {1}:
            return f"has dilation={module.dilation}, and the new one's windows have no gaps"
        if module.return_indices:
            return "has return_indices=True, and a mean has no index"
        counts = False
    else:
        base = AVERAGES[axes - 1]
        if getattr(module, "divisor_override", None) is not None:
            return f"has divisor_override={module.divisor_override}, and weights sum to 1"
        counts = module.count_include_pad
    if cls.get_extra_state is not nn.Module.get_extra_state:
        return f"keeps extra state ({cls.__name__}.get_extra_state), which the new one would lose"
    if "forward" in vars(module):
        return OWN_FORWARD
    try:
        if cls.forward is not base.forward or cls.__call__ is not nn.Module.__call__:
            of_planes = isinstance(module, (nn.MaxPool2d, nn.AvgPool2d))
            return (of_planes and window_by_trial(module)) or OWN_FORWARD
        return window_of(
            module.kernel_size, module.stride, module.padding, module.ceil_mode, counts, axes
        )
    except (TypeError, ValueError) as error:
        return f"has a window that no pooling takes ({error})"


def reason_against_inputs(inputs: list[Tensor], infinite: bool) -> str | None:
    """Why no pooling can take the place of one with these inputs; None if one can.

    Args:
        inputs: of its calls.
        infinite: whether one of them was padded or filled with infinity.
    """
    for input in inputs:
        if not input.is_floating_point():
            return f"pools {input.dtype}, and the new one's weights are fractions"
    return INFINITE if infinite else None


def reason_against_conv(conv: nn.Conv2d) -> str | None:
    """Why a strided convolution cannot be pooled instead; None if it can."""
    if "forward" in vars(conv):
        return OWN_FORWARD
    if type(conv) is not nn.Conv2d:
        return "is of a class of its own, whose forward may do anything"
    return None


def _numbers(value: int | Sequence[int]) -> Sequence[int]:
    return value if isinstance(value, Sequence) else (value,)
