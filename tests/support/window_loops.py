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
    """What ``formula(x, *parameters)`` makes of each window x, [N, C, n], of 4-D ``input``.

    A parameter that is a tensor is broadcast to the output and reaches the formula as [N, C, 1];
    ``Kernel(w)`` reaches it as the part of w that lies over the window, [N, C, n].
    """
    x = input.detach().double().numpy()
    height, width = x.shape[2:]
    out_h, out_w = output_size(geometry, height, width)
    result = np.zeros((*x.shape[:2], out_h, out_w))
    for row in range(out_h):
        for column in range(out_w):
            top = row * geometry.stride[0] - geometry.padding[0]
            left = column * geometry.stride[1] - geometry.padding[1]
            rows = range(max(top, 0), min(top + geometry.kernel_size[0], height))
            columns = range(max(left, 0), min(left + geometry.kernel_size[1], width))
            at = np.ix_(range(x.shape[0]), range(x.shape[1]), rows, columns)
            here = [
                _at_window(parameter, result.shape, row, column, top, left, rows, columns)
                for parameter in parameters
            ]
            window = x[at].reshape(*x.shape[:2], -1)
            result[:, :, row, column] = formula(window, *here)
    return torch.from_numpy(result)


class Kernel:
    """A parameter with one element per place in the window, [1, C or 1, kH, kW]."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach().double().numpy()

    def over(self, top: int, left: int, rows: range, columns: range) -> np.ndarray:
        part = self.weight[
            :, :, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]
        return part.reshape(*part.shape[:2], -1)


def _at_window(parameter, shape, row, column, top, left, rows, columns):
    if isinstance(parameter, Kernel):
        return parameter.over(top, left, rows, columns)
    if isinstance(parameter, Tensor):
        return np.broadcast_to(parameter.detach().double().numpy(), shape)[:, :, row, column, None]
    return parameter
