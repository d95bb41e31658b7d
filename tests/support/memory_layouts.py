"""The same numbers, laid out in memory in every way that a caller may."""

import torch
from torch import Tensor

__all__ = ["LAYOUTS", "arranged"]


def arranged(tensor: Tensor, layout: str) -> Tensor:
    """A tensor equal to 4-D ``tensor`` in one of the LAYOUTS."""
    return LAYOUTS[layout](tensor)


def _misaligned(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    """Dense in the given order of axes, but starting one element after an aligned address."""
    permuted = tensor.permute(order)
    memory = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device)
    dense = memory[1:].view(permuted.shape)
    dense.copy_(permuted)
    return dense.permute([order.index(axis) for axis in range(4)])


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(2, 3).contiguous().transpose(2, 3)


def _sliced(tensor: Tensor) -> Tensor:
    """Every other column of a wider tensor, whose further columns are NaN."""
    *shape, width = tensor.shape
    wider = torch.full((*shape, 2 * width), float("nan"), dtype=tensor.dtype, device=tensor.device)
    wider[..., ::2] = tensor
    return wider[..., ::2]


LAYOUTS = {
    "contiguous": Tensor.contiguous,
    "channels_last": lambda tensor: tensor.contiguous(memory_format=torch.channels_last),
    "misaligned contiguous": lambda tensor: _misaligned(tensor, (0, 1, 2, 3)),
    "misaligned channels_last": lambda tensor: _misaligned(tensor, (0, 2, 3, 1)),
    "transposed": _transposed,
    "sliced": _sliced,
}
