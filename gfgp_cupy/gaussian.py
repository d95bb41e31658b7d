"""Gaussian pooling as a window function."""

from __future__ import annotations

import torch
from torch import Tensor

from .autograd import register
from .geometry import PoolGeometry
from .reference import average_of_windows, windows
from .window_function import WindowFunction

__all__ = ["GAUSSIAN", "LEAST_VARIANCE"]

LEAST_VARIANCE = 1e-6


def _composition(input: Tensor, weight: Tensor, geometry: PoolGeometry, eps: float) -> Tensor:
    centre, correction, variance = _moments(input.to(weight.dtype), geometry)
    deviation = variance.clamp(min=eps).sqrt()
    return (centre + (correction + weight * deviation)).to(input.dtype)


def _moments(input: Tensor, geometry: PoolGeometry) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, in two parts, and variance of the elements that each window has inside ``input``.

    They are the same about any centre, and so are their derivatives: the first part, the mean but
    for rounding errors, is a constant.
    """
    elements, inside = windows(input, geometry)
    centre = average_of_windows(input.detach(), geometry)
    distances = torch.where(inside, elements - centre, 0)
    count = inside.sum(0)
    correction = distances.sum(0) / count
    variance = distances.square().sum(0) / count - correction.square()
    return centre, correction, variance


GAUSSIAN = register(
    WindowFunction(
        name="gaussian",
        parameter="weight",
        composition=_composition,
        cuda="gaussian.cu",
        cpu="gfgp_cupy.backends.numba.functions.gaussian",
        constant=LEAST_VARIANCE,
    )
)
"""θ is w; ∂y/∂w is the standard deviation σ."""
