"""Which poolings and convolutions have an equivalent, and the reason against the others."""

from __future__ import annotations

from torch import nn

from .subclass_windows import window_by_trial
from .window import Window, pair, window_of

__all__ = ["equivalent_window", "reason_against_conv"]

OWN_FORWARD = "has a forward of its own, which may do anything"


def equivalent_window(module: nn.MaxPool2d | nn.AvgPool2d) -> Window | str:
    """The window by which a new pooling does what ``module`` does, or the reason against one."""
    if isinstance(module, nn.MaxPool2d):
        base = nn.MaxPool2d
        if pair(module.dilation) != (1, 1):
            return f"has dilation={module.dilation}, and the new one's windows have no gaps"
        if module.return_indices:
            return "has return_indices=True, and a mean has no index"
        counts = False
    else:
        base = nn.AvgPool2d
        if module.divisor_override is not None:
            return f"has divisor_override={module.divisor_override}, and weights sum to 1"
        counts = module.count_include_pad
    cls = type(module)
    if cls.get_extra_state is not nn.Module.get_extra_state:
        return f"keeps extra state ({cls.__name__}.get_extra_state), which the new one would lose"
    if "forward" in vars(module):
        return OWN_FORWARD
    try:
        if cls.forward is not base.forward or cls.__call__ is not nn.Module.__call__:
            return window_by_trial(module) or OWN_FORWARD
        return window_of(
            module.kernel_size, module.stride, module.padding, module.ceil_mode, counts
        )
    except (TypeError, ValueError) as error:
        return f"has a window that no pooling takes ({error})"


def reason_against_conv(conv: nn.Conv2d) -> str | None:
    """Why a strided convolution cannot be pooled instead; None if it can."""
    if "forward" in vars(conv):
        return OWN_FORWARD
    if type(conv) is not nn.Conv2d:
        return "is of a class of its own, whose forward may do anything"
    return None
