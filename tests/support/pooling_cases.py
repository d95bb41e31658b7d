"""The other poolings of the literature, as tests call them: function, formula, parameter."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from gfgp_cupy import poolings
from gfgp_cupy.geometry import PoolGeometry, pool_geometry
from tests.support.random_numbers import random_numbers
from tests.support.window_loops import Kernel, pooled

__all__ = ["CASES", "GEOMETRIES", "Case", "each_case", "each_geometry", "images"]

GEOMETRIES = {
    "2": pool_geometry(2),
    "3/2/1": pool_geometry(3, 2, 1),
    "3x2/1x3/1x0 ceil": pool_geometry((3, 2), (1, 3), (1, 0), ceil_mode=True),
    "2/3/1 ceil": pool_geometry(2, 3, 1, ceil_mode=True),
}
each_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)


@dataclass(frozen=True)
class Case:
    """A pooling ``function(input, *parameters, *window)`` and its formula for one window.

    ``parameters`` makes the usual parameters: per channel, float64. The first of them is a
    :class:`Kernel` to the formula if ``gates``.
    """

    function: Callable
    formula: Callable
    parameters: Callable[[int, PoolGeometry], tuple[Tensor, ...]]
    needs_positive_input: bool = False
    gates: bool = False

    def __call__(self, input: Tensor, parameters: tuple, geometry: PoolGeometry) -> Tensor:
        first, rest = parameters[:1], parameters[1:]
        window = (geometry.kernel_size, geometry.stride, geometry.padding, geometry.ceil_mode)
        return self.function(input, *first, *window, *rest)

    def by_loops(self, input: Tensor, parameters: tuple, geometry: PoolGeometry) -> Tensor:
        if self.gates:
            parameters = (Kernel(parameters[0]), *parameters[1:])
        return pooled(input, self.formula, geometry, *parameters)

    def images(self, shape=(2, 3, 7, 6), dtype=torch.float64, seed=0) -> Tensor:
        x = images(shape, torch.float64, seed)
        return (x.abs() + 0.05 if self.needs_positive_input else x).to(dtype)


def images(shape=(2, 3, 7, 6), dtype=torch.float64, seed=0) -> Tensor:
    return random_numbers(shape, dtype, seed)


def _soft(x):
    return (np.exp(x) * x).sum(-1) / np.exp(x).sum(-1)


def _mixed(x, proportion):
    return proportion[..., 0] * x.max(-1) + (1 - proportion[..., 0]) * x.mean(-1)


def _gated(x, weight, bias):
    return _mixed(x, 1 / (1 + np.exp(-(weight * x).sum(-1, keepdims=True) - bias)))


def _edscw(x):
    mean = x.mean(-1, keepdims=True)
    weight = np.exp(2 * x * mean / (x**2 + mean**2))
    return (weight * x).sum(-1) / weight.sum(-1)


def _ada(x, beta):
    return beta[..., 0] * _edscw(x) + (1 - beta[..., 0]) * _soft(x)


def _generalized_mean(x, p):
    return (np.maximum(x, 1e-6) ** p).mean(-1) ** (1 / p[..., 0])


def _log_sum_exp(x, lam):
    return np.log(np.exp(lam * x).mean(-1)) / lam[..., 0]


def _per_channel(values: Callable[[Tensor], Tensor]) -> Callable:
    def parameters(channels: int, geometry: PoolGeometry) -> tuple[Tensor]:
        return (values(random_numbers((1, channels, 1, 1), torch.float64, 7)),)

    return parameters


def _gates(channels: int, geometry: PoolGeometry) -> tuple[Tensor, Tensor]:
    weight = random_numbers((1, channels, *geometry.kernel_size), torch.float64, 8)
    return weight, random_numbers((1, channels, 1, 1), torch.float64, 9)


CASES = {
    "soft": Case(poolings.soft_pool2d, _soft, lambda channels, geometry: ()),
    "edscw": Case(poolings.edscw_pool2d, _edscw, lambda channels, geometry: ()),
    "ada": Case(poolings.ada_pool2d, _ada, _per_channel(torch.sigmoid)),
    "mixed": Case(poolings.mixed_pool2d, _mixed, _per_channel(torch.sigmoid)),
    "gated": Case(poolings.gated_pool2d, _gated, _gates, gates=True),
    "gem": Case(
        poolings.generalized_mean_pool2d,
        _generalized_mean,
        _per_channel(lambda p: 3 * p),
        needs_positive_input=True,
    ),
    "lse": Case(poolings.log_sum_exp_pool2d, _log_sum_exp, _per_channel(lambda lam: 3 * lam)),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
