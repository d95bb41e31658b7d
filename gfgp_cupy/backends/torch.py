"""Backend ``torch``: plain PyTorch on any device, and the reference for every other backend.

Each kernel position (i, j) is a strided view of the padded input, one element a window, so that
a loop over the kH·kW positions needs output-sized temporaries only: the input is never unfolded.

All sums are taken relative to a reference element r of the window, its maximum (its minimum
where λ < 0): with d_i = x_i − r and e_i = exp(λ d_i), every e_i is at most 1 and one of them is
exactly 1, so y = r + Σ e_i d_i / Σ e_i can neither overflow nor leave [min x, max x].
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import PoolGeometry
from ..memory_format import layout_of

__all__ = [
    "backward", "composition", "forward", "forward_with_spread", "lam_backward", "unavailable",
]


def unavailable(device: torch.device) -> str | None:
    """Why this backend cannot serve ``device``: it always can."""
    return None


def forward(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    """Pools [N, C, H, W] ``input`` with λ of 4 dimensions to [N, C, oH, oW]."""
    return composition(input, lam, geometry).contiguous(memory_format=layout_of(input))


def forward_with_spread(
    input: Tensor, lam: Tensor, geometry: PoolGeometry
) -> tuple[Tensor, Tensor]:
    """:func:`forward` and each window's standard deviation, for :func:`lam_backward`.

    The deviation, not the variance: it has the range of the input, hence fits its type.
    """
    reference, mean, total = _window_sums(input, lam, geometry)
    variance = torch.zeros_like(mean)
    for x, valid in _windows(input, lam, geometry):
        weight = _weight(x, reference, lam, valid) / total
        variance += _squared_deviation(weight, _inside(x, valid, mean) - mean)
    layout = layout_of(input)
    return tuple(
        tensor.to(input.dtype).contiguous(memory_format=layout)
        for tensor in (mean, variance.sqrt())
    )


def lam_backward(grad_output: Tensor, spread: Tensor, lam: Tensor) -> Tensor:
    """The gradient of a ``lam`` that is constant over planes, from output-sized tensors alone."""
    variance = spread.to(lam.dtype).square()
    return (grad_output.to(lam.dtype) * variance).sum_to_size(lam.shape).contiguous()


def composition(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    """The same out of differentiable operations alone, so that PyTorch can derive it again."""
    _, mean, _ = _window_sums(input, lam, geometry)
    return mean.to(input.dtype)


def backward(
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    geometry: PoolGeometry,
    needed: tuple[bool, bool],
    mean_grad: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """∂y/∂x_i = p_i (1 + λ (x_i − y)) and ∂y/∂λ = Σ p_i (x_i − y)², each times ``grad_output``.

    ``mean_grad``, [N, C, 1, 1] of λ's type, is added to every element's gradient.

    Returns:
        The gradients of ``input`` and ``lam``; ``None`` for one that is not ``needed``.
    """
    reference, mean, total = _window_sums(input, lam, geometry)
    grad = grad_output.to(mean.dtype)
    top, left = geometry.padding
    padded_grad = _padded(torch.zeros_like(input, dtype=mean.dtype), geometry)
    variance = torch.zeros_like(mean)
    for (x, valid), grad_x in zip(
        _windows(input, lam, geometry), _views(padded_grad, input, geometry), strict=True
    ):
        weight = _weight(x, reference, lam, valid) / total
        deviation = _inside(x, valid, mean) - mean
        if needed[0]:
            grad_x += grad * weight * (1 + lam * deviation)
        if needed[1]:
            variance += _squared_deviation(weight, deviation)
    height, width = input.shape[2:]
    grad_input = padded_grad[:, :, top : top + height, left : left + width]
    if mean_grad is not None:
        grad_input += mean_grad
    return (
        grad_input.to(input.dtype).contiguous(memory_format=layout_of(input))
        if needed[0] else None,
        (grad * variance).sum_to_size(lam.shape).contiguous() if needed[1] else None,
    )


def _window_sums(input: Tensor, lam: Tensor, geometry: PoolGeometry):
    """Per window: the reference element r, the mean y, and the total Σ exp(λ (x_i − r))."""
    windows = _windows(input, lam, geometry)
    reference = _reference(windows, lam).detach()
    total, weighted = 0, 0
    for x, valid in windows:
        weight = _weight(x, reference, lam, valid)
        total = total + weight
        weighted = weighted + weight * (_inside(x, valid, reference) - reference)
    return reference, reference + weighted / total, total


def _windows(
    input: Tensor, lam: Tensor, geometry: PoolGeometry
) -> list[tuple[Tensor, Tensor | None]]:
    """For each kernel position, each window's element, in λ's type, and which are valid."""
    padded = _padded(input.to(lam.dtype), geometry)
    return list(zip(_views(padded, input, geometry), _valid(input, geometry), strict=True))


def _reference(windows: list[tuple[Tensor, Tensor | None]], lam: Tensor) -> Tensor:
    largest, smallest = float("-inf"), float("inf")
    for x, valid in windows:
        upper = _inside(x, valid, float("-inf"))
        lower = _inside(x, valid, float("inf"))
        largest = torch.maximum(upper, largest) if isinstance(largest, Tensor) else upper
        smallest = torch.minimum(lower, smallest) if isinstance(smallest, Tensor) else lower
    return torch.where(lam < 0, smallest, largest)


def _weight(x: Tensor, reference: Tensor, lam: Tensor, valid: Tensor | None) -> Tensor:
    weight = torch.exp(lam * (_inside(x, valid, reference) - reference))
    return weight if valid is None else weight * valid


def _squared_deviation(weight: Tensor, deviation: Tensor) -> Tensor:
    """weight · deviation², in an order in which a weight of 0 meets no infinite square."""
    return weight * deviation * deviation


def _inside(x: Tensor, valid: Tensor | None, elsewhere: Tensor | float) -> Tensor:
    return x if valid is None else torch.where(valid, x, elsewhere)


def _padded(input: Tensor, geometry: PoolGeometry) -> Tensor:
    # The most that windows can reach past the end, whatever the size, which may be symbolic.
    top, left = geometry.padding
    bottom, right = (
        padding + (stride - 1) * geometry.ceil_mode
        for padding, stride in zip(geometry.padding, geometry.stride, strict=True)
    )
    if not (top or left or bottom or right):
        return input
    return F.pad(input, (left, right, top, bottom))


def _views(padded: Tensor, input: Tensor, geometry: PoolGeometry) -> Iterator[Tensor]:
    """For each kernel position, row by row, the [N, C, oH, oW] view of its elements."""
    out_h, out_w = geometry.output_size(*input.shape[2:])
    step_h, step_w = geometry.stride
    for i in range(geometry.kernel_size[0]):
        for j in range(geometry.kernel_size[1]):
            yield padded[
                :, :,
                i : i + step_h * (out_h - 1) + 1 : step_h,
                j : j + step_w * (out_w - 1) + 1 : step_w,
            ]


def _valid(input: Tensor, geometry: PoolGeometry) -> Iterator[Tensor | None]:
    """For each kernel position, which windows have it inside the input; ``None`` where all do."""
    size, out = input.shape[2:], geometry.output_size(*input.shape[2:])
    axes = [
        [_valid_on_axis(offset - geometry.padding[axis], geometry.stride[axis], out[axis],
                        size[axis], input.device)
         for offset in range(geometry.kernel_size[axis])]
        for axis in (0, 1)
    ]
    for row in axes[0]:
        for column in axes[1]:
            if row is None or column is None:
                yield column if row is None else row[:, None]
            else:
                yield row[:, None] & column


def _valid_on_axis(start: int, step: int, count: int, length: int, device) -> Tensor | None:
    # A symbolic length, as exporters have, stands for many.
    known = isinstance(length, int)
    if known and start >= 0 and start + step * (count - 1) < length:
        return None
    position = torch.arange(count, device=device) * step + start
    return (position >= 0) & (position < length)
