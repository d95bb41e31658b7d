"""Backend ``torch``: plain PyTorch on any device, and the reference for every other backend.

Each kernel position (i, j) is a strided view of the padded input, one element a window, so that
a loop over the kH·kW positions needs output-sized temporaries only: the input is never unfolded.

All sums are taken relative to a reference element r of the window, its maximum (its minimum
where λ < 0): with d_i = x_i − r and e_i = exp(λ d_i), every e_i is at most 1 and one of them is
exactly 1, so c = r + Σ e_i d_i / Σ e_i can neither overflow nor leave [min x, max x]. In a large
window |c| may be much less than |r|, and c has the rounding errors of sums of r's size; so the
same sum is taken again relative to c: y = c + Σ e_i (x_i − c) / Σ e_i is right to the last digit
or two, and with the correction y − c kept apart so are the deviations x_i − y.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import PoolGeometry
from ..memory_format import dense, layout_of
from ..spread import pack_spread, unpack_spread

__all__ = [
    "backward",
    "composition",
    "forward",
    "forward_with_spread",
    "lam_backward",
    "unavailable",
]


def unavailable(device: torch.device) -> str | None:
    """Why this backend cannot serve ``device``: it always can."""
    return None


def forward(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    """Pools [N, C, H, W] ``input`` with λ of 4 dimensions to [N, C, oH, oW]."""
    return dense(composition(input, lam, geometry), layout_of(input))


def forward_with_spread(
    input: Tensor, lam: Tensor, geometry: PoolGeometry
) -> tuple[Tensor, Tensor]:
    """:func:`forward` and each window's standard deviation, for :func:`lam_backward`.

    The deviation, not the variance: it has the range of the input. It comes as
    :func:`gfgp_cupy.spread.pack_spread` keeps it.
    """
    windows = _windows(input, lam, geometry)
    reference = _reference(windows, lam)
    centre = _centre(windows, lam, reference)
    total, correction = _sums(windows, lam, reference, centre)
    variance = torch.zeros_like(centre)
    for block in _blocks(windows):
        part = torch.zeros_like(centre)
        for x, valid in block:
            weight = _weight(x, valid, lam, reference) / total
            _add_square(part, weight, _distance(x, valid, centre) - correction)
        variance += part
    layout = layout_of(input)
    return (
        dense((centre + correction).to(input.dtype), layout),
        dense(pack_spread(variance.sqrt(), input.dtype), layout),
    )


def lam_backward(grad_output: Tensor, spread: Tensor, lam: Tensor) -> Tensor:
    """The gradient of a ``lam`` that is constant over planes, from output-sized tensors alone."""
    variance = unpack_spread(spread, grad_output.dtype).square()
    return (grad_output.to(lam.dtype) * variance).sum_to_size(lam.shape).contiguous()


def composition(input: Tensor, lam: Tensor, geometry: PoolGeometry) -> Tensor:
    """The same out of differentiable operations alone, so that PyTorch can derive it again.

    The mean is the same about any centre, and so are its derivatives: r and c are constants.
    """
    windows = _windows(input, lam, geometry)
    constants = [(x.detach(), valid) for x, valid in windows]
    reference = _reference(constants, lam.detach())
    centre = _centre(constants, lam.detach(), reference)
    _, correction = _sums(windows, lam, reference, centre)
    return (centre + correction).to(input.dtype)


def backward(
    grad_output: Tensor,
    input: Tensor,
    lam: Tensor,
    geometry: PoolGeometry,
    needed: tuple[bool, bool],
    mean_grad: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """See :func:`forward`; ``mean_grad``, [N, C, 1, 1] of λ's type, is added to every element's
    gradient.

    Returns:
        The gradients of ``input`` and ``lam``; ``None`` for one that is not ``needed``.
    """
    windows = _windows(input, lam, geometry)
    reference = _reference(windows, lam)
    centre = _centre(windows, lam, reference)
    total, correction = _sums(windows, lam, reference, centre)
    grad = grad_output.to(lam.dtype)
    top, left = geometry.padding
    padded_grad = _padded(torch.zeros_like(input, dtype=lam.dtype), geometry)
    grad_views = _views(padded_grad, input, geometry)
    variance = torch.zeros_like(centre)
    for block in _blocks(list(zip(windows, grad_views, strict=True))):
        part = torch.zeros_like(centre)
        for (x, valid), grad_x in block:
            weight = _weight(x, valid, lam, reference) / total
            deviation = _distance(x, valid, centre) - correction
            if needed[0]:
                # Not weight · (1 + λ · deviation): where that overflows the weight is 0.
                grad_x += grad * (weight + lam * (weight * deviation))
            if needed[1]:
                _add_square(part, weight, deviation)
        variance += part
    height, width = input.shape[2:]
    grad_input = padded_grad[:, :, top : top + height, left : left + width]
    if mean_grad is not None:
        grad_input += mean_grad
    return (
        dense(grad_input.to(input.dtype), layout_of(input)) if needed[0] else None,
        (grad * variance).sum_to_size(lam.shape).contiguous() if needed[1] else None,
    )


def _centre(windows, lam: Tensor, reference: Tensor) -> Tensor:
    return reference + _sums(windows, lam, reference, reference)[1]


def _sums(windows, lam: Tensor, reference: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Per window: the total Σ e_i, and the mean minus ``centre``."""
    # A power of two of at most 1 / Σ e_i: with it no sum outgrows the largest distance.
    factor = 0.5 ** (len(windows) - 1).bit_length()
    total = weighted = torch.zeros_like(reference)
    for block in _blocks(windows):
        block_total = block_weighted = torch.zeros_like(reference)
        for x, valid in block:
            weight = _weight(x, valid, lam, reference)
            distance = _distance(x, valid, centre)
            block_total = block_total + weight
            block_weighted = torch.addcmul(block_weighted, weight, distance, value=factor)
        total = total + block_total
        weighted = weighted + block_weighted
    return total, weighted / (factor * total)


def _blocks(terms: list) -> list[list]:
    """About as many blocks as each has terms: sums in two levels keep more digits."""
    size = math.isqrt(len(terms) - 1) + 1
    return [terms[start : start + size] for start in range(0, len(terms), size)]


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


def _weight(x: Tensor, valid: Tensor | None, lam: Tensor, reference: Tensor) -> Tensor:
    weight = torch.exp(lam * _distance(x, valid, reference))
    return weight if valid is None else weight * valid


def _distance(x: Tensor, valid: Tensor | None, origin: Tensor) -> Tensor:
    return _inside(x, valid, origin) - origin


def _add_square(total: Tensor, weight: Tensor, deviation: Tensor) -> None:
    # In this order, since 0 · (a large deviation)² must not be 0 · ∞.
    total.addcmul_(weight * deviation, deviation)


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
    rows = [slice(i, i + step_h * (out_h - 1) + 1, step_h) for i in range(geometry.kernel_size[0])]
    columns = [
        slice(j, j + step_w * (out_w - 1) + 1, step_w) for j in range(geometry.kernel_size[1])
    ]
    for row in rows:
        for column in columns:
            if layout_of(input) is torch.channels_last:
                # The gradient of a slice is contiguous: here in this order of its axes.
                yield padded.permute(0, 2, 3, 1)[:, row, column].permute(0, 3, 1, 2)
            else:
                yield padded[:, :, row, column]


def _valid(input: Tensor, geometry: PoolGeometry) -> Iterator[Tensor | None]:
    """For each kernel position, which windows have it inside the input; ``None`` where all do."""
    size, out = input.shape[2:], geometry.output_size(*input.shape[2:])
    axes = [
        [
            _valid_on_axis(
                offset - geometry.padding[axis],
                geometry.stride[axis],
                out[axis],
                size[axis],
                input.device,
            )
            for offset in range(geometry.kernel_size[axis])
        ]
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
