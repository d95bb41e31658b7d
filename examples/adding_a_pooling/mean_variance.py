"""Mean-variance pooling, y = μ + w σ²: a pooling that the library does not have, and its layers."""

from pathlib import Path

import torch
from torch import Tensor

from gfgp_cupy.autograd import register
from gfgp_cupy.geometry import PoolGeometry
from gfgp_cupy.learned import LearnedPool2d
from gfgp_cupy.poolings import GuidedPool2d
from gfgp_cupy.reference import windows
from gfgp_cupy.window_function import WindowFunction
from gfgp_cupy.window_pooling import pool_windows


def composition(input: Tensor, weight: Tensor, geometry: PoolGeometry) -> Tensor:
    """[N, C, oH, oW] of [N, C, H, W] input, by PyTorch's operators."""
    elements, inside = windows(input.to(weight.dtype), geometry)
    count = inside.sum(0)
    mean = torch.where(inside, elements, 0).sum(0) / count
    variance = torch.where(inside, elements - mean, 0).square().sum(0) / count
    return (mean + weight * variance).to(input.dtype)


MEAN_VARIANCE = register(
    WindowFunction(
        name="mean_variance",
        parameter="weight",
        composition=composition,
        cuda=Path(__file__).with_name("mean_variance.cu"),
        cpu="mean_variance_cpu",
        spread="positive",  # the derivative by the weight, a variance, is not negative
    )
)


class MeanVariancePool2d(LearnedPool2d):
    """With a weight of its own, one a channel or one in all."""

    parameter_name = "weight"
    weight: Tensor

    def __init__(self, kernel_size, stride=None, padding=0, ceil_mode=False, num_features=None):
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.add_parameter(num_features, learnable=True)
        self.reset_parameters()

    def initial_value(self) -> float:
        return 0.5

    def forward(self, input: Tensor) -> Tensor:
        return pool_windows(MEAN_VARIANCE, input, self.weight, *self.window)


class GFGPMeanVariancePool2d(GuidedPool2d):
    """With a weight from 0 to 1 that a GFGP head predicts for each sample and channel."""

    activation = torch.nn.Sigmoid
    function = MEAN_VARIANCE
