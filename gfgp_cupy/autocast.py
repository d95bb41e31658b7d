"""What ``torch.autocast`` means for a pooling: the type of the mean that its head is given."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["autocasts", "mean_dtype"]


def autocasts(device: torch.device) -> bool:
    """Whether ``torch.autocast`` chooses the types that operators on ``device`` compute in."""
    if not torch._C._is_any_autocast_enabled():  # answered much faster than the questions below
        return False
    # A device that knows no autocast, as meta, raises an error at the last question. The one
    # before, which PyTorch 2.6 cannot compile, is for those alone.
    known = device.type in ("cpu", "cuda") or torch.amp.is_autocast_available(device.type)
    return known and torch.is_autocast_enabled(device.type)


def mean_dtype(input: Tensor) -> torch.dtype:
    """The type of a head's mean: under autocast, float32 for half types."""
    half = input.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if half and autocasts(input.device) else input.dtype
