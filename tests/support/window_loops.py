"""A formula over one window's elements, applied to every window by loops in float64.

Padding is left out here by slicing, where the poolings mask it.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gfgp_cupy.geometry import PoolGeometry
from tests.support.slow_loops import output_size

__all__ = ["Kernel", "pooled"]


def pooled(input: Tensor, formula: Callable, geometry: PoolGeometry, *parameters) -> Tensor:
    """What ``formula(x, *parameters)`` makes of each window x, [N, C, n], of ``input``, which has
    as many axes behind N and C as the windows.

    A parameter that is a tensor is broadcast to the output and reaches the formula as [N, C, 1];
    ``Kernel(w)`` reaches it as the part of w that lies over the window, [N, C, n].
    """
    x = input.detach().double().numpy()
    batch, sizes = x.shape[:2], x.shape[2:]
    result = np.zeros((*batch, *output_size(geometry, *sizes)))
    for place in np.ndindex(*result.shape[2:]):
        steps = zip(place, geometry.stride, geometry.padding, strict=True)
        starts = [index * stride - padding for index, stride, padding in steps]
        ends = zip(starts, geometry.kernel_size, sizes, strict=True)
        ranges = [range(max(at, 0), min(at + kernel, size)) for at, kernel, size in ends]
        window = x[np.ix_(*map(range, batch), *ranges)].reshape(*batch, -1)
        here = [_at_window(each, result.shape, place, starts, ranges) for each in parameters]
        result[(..., *place)] = formula(window, *here)
    return torch.from_numpy(result)


class Kernel:
    """A parameter with one element per place in the window, [1, C or 1, kH, kW]."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach().double().numpy()

    def over(self, starts: list[int], ranges: list[range]) -> np.ndarray:
        inside = [
            slice(each.start - start, each.stop - start)
            for start, each in zip(starts, ranges, strict=True)
        ]
        part = self.weight[(..., *inside)]
        return part.reshape(*part.shape[:2], -1)


def _at_window(parameter, shape, place, starts, ranges):
    if isinstance(parameter, Kernel):
        return parameter.over(starts, ranges)
    if isinstance(parameter, Tensor):
        full = np.broadcast_to(parameter.detach().double().numpy(), shape)
        return full[(..., *place)][..., None]
    return parameter
