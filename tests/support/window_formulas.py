"""Every window function by its formula, as its paper writes it, and its derivatives.

A pooling's entry in FORMULAS is the formula of its output alone. It is evaluated in extended
precision, in loops over windows, and differentiated by an imaginary step, which takes no difference
and so loses no digits: f(x + ih) = f(x) + ih f′(x). Hence a formula uses what is analytic, and
``largest`` for a maximum. Padding is left out by slicing, where the poolings mask it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gfgp_cupy.geometry import PoolGeometry
from gfgp_cupy.window_function import WindowFunction
from tests.support.slow_loops import output_size

__all__ = ["FORMULAS", "Exact", "Formula", "exact"]

STEP = 1e-30
SMALL = 1e-6
"""An exponent below which a logarithm of exponentials gives way to its series."""


@dataclass(frozen=True)
class Formula:
    """A pooling's formula.

    Attributes:
        output: of the elements x [N, C, n] of a window in each plane and the parameter [N, C, 1],
            and of the constant where there is one: [N, C].
        usual: of standard normal numbers it makes usual parameters.
        positive: whether elements must be positive.
    """

    output: Callable[..., np.ndarray]
    usual: Callable[[Tensor], Tensor]
    positive: bool = False


@dataclass(frozen=True)
class Exact:
    """The output, its derivatives by the parameter, and the gradients, in float64."""

    output: Tensor
    sensitivity: Tensor
    grad_input: Tensor
    grad_parameter: Tensor


def largest(x):
    """The maximum; its derivative is shared evenly by the elements that are the maximum."""
    equal = x.real == x.real.max(-1, keepdims=True)
    return (x * equal).sum(-1) / equal.sum(-1)


def max_ent(x, lam):
    e = np.exp(lam * x - (lam * x).real.max(-1, keepdims=True))
    return (e * x).sum(-1) / e.sum(-1)


def log_sum_exp(x, lam):
    mean = x.mean(-1, keepdims=True)
    deviation = x - mean
    small = abs(lam * deviation).max(-1) < SMALL
    reference = (lam * deviation).real.max(-1, keepdims=True)
    logarithm = np.log(np.exp(lam * deviation - reference).mean(-1)) + reference[..., 0]
    series = lam[..., 0] / 2 * (deviation**2).mean(-1)
    series = series + lam[..., 0] ** 2 / 6 * (deviation**3).mean(-1)
    return mean[..., 0] + np.where(small, series, logarithm / np.where(small, 1, lam[..., 0]))


def generalized_mean(x, p, eps):
    return np.exp(log_sum_exp(np.log(np.where(x.real > eps, x, eps)), p))


def mixed(x, proportion):
    return proportion[..., 0] * largest(x) + (1 - proportion[..., 0]) * x.mean(-1)


def gaussian(x, weight, eps):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1)
    return mean[..., 0] + weight[..., 0] * np.sqrt(np.where(variance.real < eps, eps, variance))


def likeness(x, mean):
    """The Dice-Sørensen coefficient; 0 of two zeros, without a derivative."""
    both_zero = (x.real == 0) & (mean.real == 0)
    return np.where(both_zero, 0, 2 * x * mean / np.where(both_zero, 1, x**2 + mean**2))


def ada(x, beta):
    e = np.exp(likeness(x, x.mean(-1, keepdims=True)))
    by_likeness = (e * x).sum(-1) / e.sum(-1)
    return beta[..., 0] * by_likeness + (1 - beta[..., 0]) * max_ent(x, 1)


FORMULAS = {
    "max_ent": Formula(max_ent, lambda z: 2 * z),
    "log_sum_exp": Formula(log_sum_exp, lambda z: 3 * z),
    "generalized_mean": Formula(generalized_mean, lambda z: 3 * z, positive=True),
    "mixed": Formula(mixed, torch.sigmoid),
    "gaussian": Formula(gaussian, lambda z: z),
    "ada": Formula(ada, torch.sigmoid),
}


def exact(
    function: WindowFunction,
    input: Tensor,
    parameter: Tensor,
    geometry: PoolGeometry,
    grad_output: Tensor,
) -> Exact:
    """``function`` of 4-D ``input`` by its formula, and what ``grad_output`` comes to."""
    formula = FORMULAS[function.name].output
    constant = () if function.constant is None else (function.constant,)
    x, grads = _array(input), _array(grad_output)
    theta = np.broadcast_to(_array(parameter), grads.shape)
    output, sensitivity, grad_input = np.zeros_like(grads), np.zeros_like(grads), np.zeros_like(x)
    for row, column, at in _windows(geometry, *input.shape[2:]):
        here = (..., row, column)
        window = x[at].reshape(*x.shape[:2], -1)
        number = theta[here][..., None]
        output[here] = formula(window + 0j, number + 0j, *constant).real
        sensitivity[here] = formula(window + 0j, number + 1j * STEP, *constant).imag / STEP
        slopes = np.stack(
            [
                formula(window + 1j * step, number + 0j, *constant).imag / STEP
                for step in STEP * np.eye(window.shape[-1])
            ],
            -1,
        )
        grad_input[at] += (grads[here][..., None] * slopes).reshape(x[at].shape)
    grad_parameter = torch.from_numpy((grads * sensitivity).astype(float))
    return Exact(
        *(torch.from_numpy(array.astype(float)) for array in (output, sensitivity, grad_input)),
        grad_parameter.sum_to_size(parameter.shape),
    )


def _windows(geometry: PoolGeometry, height: int, width: int) -> Iterator[tuple[int, int, tuple]]:
    """Row and column of each window in the output, and where its elements are in the input."""
    rows, columns = output_size(geometry, height, width)
    for row in range(rows):
        for column in range(columns):
            top = row * geometry.stride[0] - geometry.padding[0]
            left = column * geometry.stride[1] - geometry.padding[1]
            inside = (
                slice(max(top, 0), min(top + geometry.kernel_size[0], height)),
                slice(max(left, 0), min(left + geometry.kernel_size[1], width)),
            )
            yield row, column, (slice(None), slice(None), *inside)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy().astype(np.longdouble)
