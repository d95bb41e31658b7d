"""The memory format an input is in, which its output and its gradient keep."""

import torch
from torch import Tensor

__all__ = ["layout_of"]


def layout_of(input: Tensor) -> torch.memory_format:
    """``torch.channels_last`` where the 4-D ``input`` lies so in memory and is not also plain
    contiguous, else ``torch.contiguous_format``."""
    if input.is_contiguous():
        return torch.contiguous_format
    if input.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
