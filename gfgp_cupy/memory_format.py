"""The memory format an input is in, which its output and its gradient keep."""

import torch
from torch import Tensor

__all__ = ["dense", "layout_of"]


def layout_of(input: Tensor) -> torch.memory_format:
    """The memory format in which PyTorch's poolings return the output of 4-D ``input``.

    ``torch.channels_last`` where its strides grow in the order C, W, H, N, whether or not it is
    dense: slices of a channels_last tensor are of that kind. Strides that would do for both, as
    where all sizes but N are 1, and an empty tensor's mean ``torch.contiguous_format``. The rule
    is that of ``c10::TensorImpl``'s ``suggest_memory_format``.
    """
    sizes, strides = input.shape, input.stride()
    if strides[1] == 0:
        return torch.contiguous_format
    least = 0
    for axis in (1, 3, 2, 0):
        stride = strides[axis]
        if sizes[axis] == 0 or stride < least or (axis == 0 and least == strides[1]):
            return torch.contiguous_format
        least = stride * sizes[axis]
    return torch.channels_last


def dense(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """``tensor`` with the strides of a new one in ``layout``, on axes of size 1, too."""
    strides = torch.empty(tensor.shape, memory_format=layout, device="meta").stride()
    if tensor.stride() == strides:
        return tensor
    return torch.empty_like(tensor, memory_format=layout).copy_(tensor)
