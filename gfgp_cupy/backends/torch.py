"""Backend ``torch``: plain PyTorch on any device.

Max-Ent pooling has a way that saves memory. Other window functions are composed of PyTorch's
operators, and autograd differentiates them: inside the operators, for programs that hold these and
run where no other backend serves; an eager call composes them itself.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..geometry import PoolGeometry
from ..max_ent import MAX_ENT
from ..memory_format import dense, layout_of
from ..reference import (
    blocks,
    composition,
    softmax_mean,
    views,
    weight_and_deviation,
    window_elements,
    zero_padded,
)
from ..spread import sensitivity_of, spread_of
from ..window_function import WindowFunction
from .small_case import one_line, raise_if_memory_is_full, run_small_case

__all__ = ["backward", "forward", "forward_with_spread", "lam_backward", "unavailable"]


@functools.cache
def unavailable(device: torch.device) -> str | None:
    """As the contract says: a window is pooled on the device to find out, once."""
    try:
        run_small_case(forward, device, size=2)
    except Exception as error:
        raise_if_memory_is_full(error, device)
        # Devices raise types of their own; all become the reason.
        return f"PyTorch cannot compute on it: {one_line(error)}"
    return None


def forward(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, function: WindowFunction = MAX_ENT
) -> Tensor:
    """Pools [N, C, H, W] ``input`` with λ of 4 dimensions to [N, C, oH, oW]."""
    return dense(function.compose(input, lam, geometry), layout_of(input))


def forward_with_spread(
    input: Tensor, lam: Tensor, geometry: PoolGeometry, function: WindowFunction = MAX_ENT
) -> tuple[Tensor, Tensor]:
    """:func:`forward`, and the derivative of each window's output by θ as :mod:`gfgp_cupy.spread`
    keeps it: for :func:`lam_backward`.

    Of Max-Ent pooling it is kept as the standard deviation under the weights, not as the variance:
    the deviation has the range of the input.
    """
    if function.name != MAX_ENT.name:
        return _composed_with_spread(input, lam, geometry, function)
    elements = window_elements(input, lam.dtype, geometry)
    mean = softmax_mean(elements, lam)
    variance = torch.zeros_like(mean.centre)
    for block in blocks(elements):
        part = torch.zeros_like(mean.centre)
        for element in block:
            _add_square(part, *weight_and_deviation(element, lam, mean))
        variance += part
    layout = layout_of(input)
    # Whole planes are composed in another order: the same bits as of the forward pass alone.
    whole = geometry.is_whole_plane(*input.shape[2:])
    output = composition(input, lam, geometry) if whole else mean.mean().to(input.dtype)
    return (
        dense(output, layout),
        dense(spread_of(variance, input.dtype, "root"), layout),
    )


def backward(
    grad_output: Tensor, input: Tensor, lam: Tensor, geometry: PoolGeometry,
    needed: tuple[bool, bool], mean_grad: Tensor | None = None,
    function: WindowFunction = MAX_ENT,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients of ``input`` and ``lam``; ``None`` for one that is not ``needed``.

    ``mean_grad``, [N, C, 1, 1] of λ's type, is added to every element's gradient.
    """
    if function.name != MAX_ENT.name:
        return _composed_backward(grad_output, input, lam, geometry, needed, mean_grad, function)
    elements = window_elements(input, lam.dtype, geometry)
    mean = softmax_mean(elements, lam)
    grad = grad_output.to(lam.dtype)
    padded_grad = zero_padded(torch.zeros_like(input, dtype=lam.dtype), geometry)
    grad_views = views(padded_grad, input, geometry)
    variance = torch.zeros_like(mean.centre)
    for block in blocks(list(zip(elements, grad_views, strict=True))):
        part = torch.zeros_like(mean.centre)
        for element, grad_x in block:
            weight, deviation = weight_and_deviation(element, lam, mean)
            if needed[0]:
                # Not weight · (1 + λ · deviation): where that overflows the weight is 0.
                grad_x += grad * (weight + lam * (weight * deviation))
            if needed[1]:
                _add_square(part, weight, deviation)
        variance += part
    grad_input = padded_grad
    for axis, (before, size) in enumerate(zip(geometry.padding, input.shape[2:], strict=True), 2):
        grad_input = grad_input.narrow(axis, before, size)
    if mean_grad is not None:
        grad_input += mean_grad
    return (
        dense(grad_input.to(input.dtype), layout_of(input)) if needed[0] else None,
        (grad * variance).sum_to_size(lam.shape).contiguous() if needed[1] else None,
    )


def lam_backward(
    grad_output: Tensor, spread: Tensor, lam: Tensor, function: WindowFunction = MAX_ENT
) -> Tensor:
    """The gradient of a ``lam`` that is constant over planes, from output-sized tensors alone;
    of any window function's parameter."""
    sensitivity = sensitivity_of(spread, grad_output.dtype, function.spread)
    return (grad_output.to(lam.dtype) * sensitivity).sum_to_size(lam.shape).contiguous()


def _composed_with_spread(
    input: Tensor, theta: Tensor, geometry: PoolGeometry, function: WindowFunction
) -> tuple[Tensor, Tensor]:
    """:func:`forward_with_spread` of any window function."""
    output = forward(input, theta, geometry, function)
    with torch.enable_grad():
        # One for each window, whose derivatives then stand apart.
        of_each = theta.expand(output.shape).detach().requires_grad_()
        pooled = function.compose(input.to(theta.dtype), of_each, geometry)
    (sensitivity,) = torch.autograd.grad(pooled, of_each, torch.ones_like(pooled))
    if function.spread == "root":
        sensitivity = sensitivity.clamp(min=0)  # but for rounding errors it is no less
    spread = spread_of(sensitivity, input.dtype, function.spread)
    return output, dense(spread, layout_of(input))


def _composed_backward(
    grad_output: Tensor, input: Tensor, theta: Tensor, geometry: PoolGeometry,
    needed: tuple[bool, bool], mean_grad: Tensor | None, function: WindowFunction,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """:func:`backward` of any window function."""
    with torch.enable_grad():
        x = input.to(theta.dtype).detach().requires_grad_(needed[0])
        parameter = theta.detach().requires_grad_(needed[1])
        output = function.compose(x, parameter, geometry)
    wanted = [each for each in (x, parameter) if each.requires_grad]
    gradients = iter(torch.autograd.grad(output, wanted, grad_output.to(theta.dtype)))
    grad_input = next(gradients) if needed[0] else None
    grad_theta = next(gradients).contiguous() if needed[1] else None
    if grad_input is not None:
        if mean_grad is not None:
            grad_input = grad_input + mean_grad
        grad_input = dense(grad_input.to(input.dtype), layout_of(input))
    return grad_input, grad_theta


def _add_square(total: Tensor, weight: Tensor, deviation: Tensor) -> None:
    # In this order, since 0 · (a large deviation)² must not be 0 · ∞.
    total.addcmul_(weight * deviation, deviation)
